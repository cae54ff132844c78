package diff

import "io"

// ahead reads from another reader before it is asked to, in a goroutine of its
// own and in blocks of one size: what is read goes on while the last block is
// worked on, and a reader that asks for little does not cost a call each time.
type aheadReader struct {
	full, free chan block // full is closed when no more come
	stop       chan struct{}
	ended      chan struct{} // when the goroutine has

	rest []byte // of the block that is being read
	last block
	err  error
}

type block struct {
	buf []byte // whole
	n   int    // bytes of it that were read
	err error  // behind them
}

// readAhead begins to read from r: so many blocks at most before they are asked
// for. Close must be called before anything that r reads from is closed.
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
		// io.ReadFull would not tell a reader that is cut off from one that ends.
		for b.n, b.err = 0, nil; b.n < size && b.err == nil; {
			var n int
			n, b.err = r.Read(b.buf[b.n:])
			b.n += n
		}
		a.full <- b // there is room for all blocks
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

// Close ends the goroutine, and waits for that. Who reads meanwhile is told so.
func (a *aheadReader) Close() error {
	close(a.stop)
	<-a.ended
	return nil
}
