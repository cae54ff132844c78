// Package report turns measurements into what people read: tables, a verdict
// on each target, and a plot. It measures nothing and touches no file.
package report
