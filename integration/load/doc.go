// Package load puts a random load on a snapshotter. Several workers perform operations at the
// same time, each in a namespace of its own beside a model of it. They share the layers of
// images.
package load
