// Package integration holds the tests that need a real pool. They run as root
// where ZFS is: in the machine that the testbed boots, or on a host that has
// it. 'make test' runs them; 'go test' alone fails here where there is no ZFS,
// because a test that did not run has not passed.
package integration
