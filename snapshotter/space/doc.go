// Package space decides what goes when room is wanted: from what lies under a
// base, and how full what it lies in is, to a plan that names each dataset, the
// bytes that come back and why. It is pure; carrying a plan out is for whoever
// knows what is in use meanwhile.
package space
