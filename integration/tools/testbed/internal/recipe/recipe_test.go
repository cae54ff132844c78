package recipe

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestKeyDependsOnAllThatGoesIn(t *testing.T) {
	make := func() (*stage, *stage) {
		below := &stage{name: "below", inputs: []string{"x"}}
		return below, &stage{name: "above", inputs: []string{"a", "bc"}, uses: []*stage{below}}
	}
	_, s := make()
	key := s.key()
	for name, change := range map[string]func(below, s *stage){
		"name":             func(_, s *stage) { s.name = "other" },
		"input":            func(_, s *stage) { s.inputs[0] = "z" },
		"input cut anew":   func(_, s *stage) { s.inputs = []string{"ab", "c"} },
		"one input less":   func(_, s *stage) { s.inputs = []string{"a"} },
		"an input of used": func(below, _ *stage) { below.inputs = nil },
		"uses nothing":     func(_, s *stage) { s.uses = nil },
	} {
		below, changed := make()
		change(below, changed)
		if changed.key() == key {
			t.Errorf("%s: the key is the same", name)
		}
	}
	_, same := make()
	same.title, same.expected = "in other words", time.Hour
	if same.key() != key || len(key) != keyLength {
		t.Error("what a person reads changed the key, or its length is wrong:", key)
	}
}

func TestStagesShareWhatTheyCan(t *testing.T) {
	keys := map[string]string{}
	shared := 0
	for _, release := range ZFSReleases() {
		all := stages(release)
		for i, s := range all {
			for _, used := range s.uses {
				if !slices.Contains(all[:i], used) {
					t.Errorf("%s is built before %s, which it uses", s.name, used.name)
				}
			}
			if keys[s.name] == s.key() {
				shared++
			}
			keys[s.name] = s.key()
		}
	}
	if shared != 7 {
		t.Errorf("%d stages are shared by the releases: %v", shared, keys)
	}
}

func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	cache, err := OpenCache()
	if err != nil {
		t.Fatal(err)
	}
	needed := cache.artefact(stages(DefaultZFS)[2])
	old := filepath.Join(cache.Dir, "zfs-2.4-0123456789ab")
	left := filepath.Join(cache.temporary(), "left")
	kept := filepath.Join(cache.Disks(), "disk-0123456789ab")
	for _, dir := range []string{needed, old, left, kept} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := cache.Prune(context.Background(), func(string, ...any) {}); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{needed: true, old: false, left: false, kept: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestLockIsInterruptible(t *testing.T) {
	cache := &Cache{Dir: t.TempDir()}
	first, err := cache.lock(context.Background(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	ctx, cancel := context.WithCancel(context.Background())
	told := 0
	_, err = cache.lock(ctx, func(string, ...any) { told++; cancel() })
	if err == nil || told != 1 {
		t.Error(told, err)
	}
}

func TestSites(t *testing.T) {
	const targets = `Packages|http://third.example/debian|stable|main
Packages|file:/media/cd|bookworm|main
DEP-11|http://wrong.example|bookworm|main
Packages|http://a.example/debian|bookworm|main
Packages|http://b.example/debian|bookworm|main
Packages|http://a.example/debian|bookworm-updates|main
Packages|http://s.example/debian-security|bookworm-security|main
nonsense
`
	archive, security := sites(targets, "bookworm")
	if archive != "http://a.example/debian" || security != "http://s.example/debian-security" {
		t.Error(archive, security)
	}
	host := debian{codename: "bookworm", archive: archive, security: security}
	lines := strings.Join(host.sources("trixie", "main contrib", "x=y"), "\n")
	const want = `deb [x=y] http://a.example/debian trixie main contrib
deb [x=y] http://a.example/debian trixie-updates main contrib
deb [x=y] http://a.example/debian trixie-backports main contrib
deb [x=y] http://s.example/debian-security trixie-security main contrib`
	if lines != want {
		t.Error(lines)
	}
	if (debian{}).sources("trixie", "main", "") != nil {
		t.Error("sources without a site")
	}
}

func TestHookIsQuoted(t *testing.T) {
	if got := hook("echo 'a'", "b c"); got != `sh -euc 'echo '\''a'\''' sh "$1" 'b c'` {
		t.Error(got)
	}
}

func TestLastLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(strings.Repeat("line\n", 10000)+"last\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := lastLines(path, 2); err != nil || got != "line\nlast" {
		t.Errorf("%q, %v", got, err)
	}
}
