package diff

import "io"

// aheadReader reads from another reader in its own goroutine, before the data is
// requested and in blocks of one size. Reading continues while the consumer works on
// the previous block, and small reads do not cost a call each.
type aheadReader struct {
	full, free chan block // full is closed after the last block
	stop       chan struct{}
	ended      chan struct{} // closed when the goroutine has ended

	rest []byte // the unread part of last
	last block
	err  error
}

type block struct {
	buf []byte
	n   int   // bytes of buf that were read
	err error // the error after them
}

// readAhead begins to read from r, at most the given number of blocks ahead. Close
// must be called before anything that r reads from is closed.
func readAhead(r io.Reader, size, blocks int) *aheadReader {
	a := &aheadReader{
		full: make(chan block, blocks), free: make(chan block, blocks),
		stop: make(chan struct{}), ended: make(chan struct{}),
	}
	for range blocks {
		a.free <- block{}
	}
	go a.fill(r, size)
	return a
}

func (a *aheadReader) fill(r io.Reader, size int) {
	defer close(a.ended)
	defer close(a.full)
	for {
		var b block
		select {
		case b = <-a.free:
		case <-a.stop:
			return
		}
		if b.buf == nil {
			b.buf = make([]byte, size)
		}
		// io.ReadFull does not distinguish a truncated reader from one that ends.
		for b.n, b.err = 0, nil; b.n < size && b.err == nil; {
			var n int
			n, b.err = r.Read(b.buf[b.n:])
			b.n += n
		}
		a.full <- b // the channel has space for all blocks
		if b.err != nil {
			return
		}
	}
}

func (a *aheadReader) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		if a.last.buf != nil {
			a.free <- a.last
		}
		next, ok := <-a.full
		if !ok {
			a.last, a.err = block{}, io.ErrClosedPipe
			continue
		}
		a.last = next
		a.rest, a.err = a.last.buf[:a.last.n], a.last.err
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close ends the goroutine and waits for its end. Read then returns the blocks that
// were read ahead, and io.ErrClosedPipe after them.
func (a *aheadReader) Close() error {
	close(a.stop)
	<-a.ended
	return nil
}
