// Package ui shows the user what goes on, on standard error: standard output
// belongs to the command in the guest. On a terminal there is one line that
// is redrawn, elsewhere there are plain lines.
package ui
