//go:build linux

package main

import "sync"

// hashes are those of layers, by chain ID, as far as any worker knows.
type hashes struct {
	mu sync.Mutex
	m  map[string]string
}

func (h *hashes) set(chain, hash string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.m[chain] = hash
}

func (h *hashes) of(chain string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.m[chain]
}
