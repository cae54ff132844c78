// Package result is what the bench has measured: samples, how they are written
// down and read again, and what is typical of many. It measures nothing.
//
// The form is Go's own benchmark format, so that benchstat reads it: lines of
// "key: value" that say where it was measured, then one line a sample.
package result
