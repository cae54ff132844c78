// Package proc starts processes that cannot outlive the program: not when it
// is interrupted, and not when it is killed.
package proc
