package machine

import (
	"os"
	"path/filepath"
	"testing"
)

func TestScratchOfKilledRunsGoesAway(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "runs")
	running, err := NewScratch(parent)
	if err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(parent, "run-killed")
	if err := os.MkdirAll(filepath.Join(killed, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	next, err := NewScratch(parent)
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{running.Dir: true, next.Dir: true, killed: false} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if err := running.Close(); err != nil {
		t.Fatal(err)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(parent); err != nil || len(entries) != 0 {
		t.Error(entries, err)
	}
}
