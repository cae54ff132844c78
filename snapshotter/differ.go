package snapshotter

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Begin announces writes into a snapshot. The caller calls end after the writes. In mode
// CleanupBackground, cleanups wait meanwhile, for at most ten minutes. Under
// pressure, the background goroutine evicts cached templates.
func (s *Snapshotter) Begin(context.Context) (end func()) {
	end = s.reaper.BeginWrite()
	s.reaper.RelievePressureIfDue()
	return end
}

// Fill records that an unpack of a layer into a runtime begins. The caller calls filled
// when the layer is completely unpacked, with its diff ID and the digest of the blob. A
// commit of the runtime then writes them to the template. They are in memory only, so they
// are lost if the daemon is restarted before the commit.
func (s *Snapshotter) Fill(runtime string) (filled func(diffID, blob digest.Digest)) {
	return s.index.Fill(runtime)
}
