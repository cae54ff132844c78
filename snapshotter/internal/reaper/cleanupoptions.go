package reaper

// Options are the options of a cleanup or an eviction.
type Options struct {
	urgent        bool              // use large batches, because a caller waits for the space
	ignoreBackoff bool              // retry stuck datasets before their pauses end
	progress      *progressReporter // or nil
}

// Progress is the progress of a cleanup, in datasets.
type Progress struct {
	Looked    int // tried: destroyed or left
	Of        int // to try, as far as known
	Destroyed int
}

// progressReporter counts the progress of a cleanup and reports it. A nil reporter does
// nothing.
type progressReporter struct {
	now    Progress
	report func(Progress)
}

func newProgressReporter(report func(Progress)) *progressReporter {
	if report == nil {
		return nil
	}
	return &progressReporter{report: report}
}

// expect adds datasets to try.
func (p *progressReporter) expect(datasets int) {
	if p == nil || datasets == 0 {
		return
	}
	p.now.Of += datasets
	p.report(p.now)
}

// add adds the result of a batch.
func (p *progressReporter) add(tried, destroyed int) {
	if p == nil {
		return
	}
	p.now.Looked += tried
	p.now.Destroyed += destroyed
	p.report(p.now)
}
