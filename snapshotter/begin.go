package snapshotter

import "context"

// Begin announces writes into a snapshot. The caller calls end after the writes. In mode
// CleanupBackground, cleanups wait meanwhile, for at most backgroundPatience. Under
// pressure, the background goroutine evicts cached templates.
func (s *Snapshotter) Begin(context.Context) (end func()) {
	end = s.reaper.beginWrite()
	s.reaper.relievePressureIfDue()
	return end
}
