// Testbed runs commands in a virtual machine that has OpenZFS, for hosts that
// have none: it builds the machine's parts once (testbed build), boots a fresh
// one in seconds, runs a command in it and brings back its output and its exit
// status (testbed run), or gives a person a prompt in it (testbed shell).
//
// The same program is also the machine's first process, see internal/guest.
package main
