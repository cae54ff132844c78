package zfs

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The test binary is its own zfs and zpool commands: TestMain puts links with
// these names first in PATH. Run under such a name, the binary returns what the
// test has configured for the pool in the arguments. Tests with pools of their own
// can run concurrently.
//
// This is a fake of the commands and their output, not of a pool: the tests of the client
// check the command lines that it makes and how it reads what they print. zfsfake has
// none of these. It is a pool for the callers of the client.

const fakeDirVariable = "ZFSTPL_TEST_FAKE_ZFS"

// result is what the fake returns for a matching command line.
type result struct {
	Match  string // regular expression over the words, joined by spaces
	Out    string
	Err    string
	Status int
	Hang   bool // hang until killed
}

// call is a call of the fake.
type call struct {
	Args   []string
	Argv   []string // the arguments of a channel program, from its script
	Stdin  string   // for a channel program, the script without arguments
	Locale string
	Held   string // the file that it inherited
}

func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); name == "zfs" || name == "zpool" {
		os.Exit(fakeZFS(os.Args[1:]))
	}
	os.Exit(withFakeZFS(m))
}

func withFakeZFS(m *testing.M) int {
	dir, err := os.MkdirTemp("", "zfstpl-fake-zfs-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	for _, name := range []string{"zfs", "zpool"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			panic(err)
		}
	}
	os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	os.Setenv(fakeDirVariable, dir)
	// With the race detector, every process sleeps for a second before it exits.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	return m.Run()
}

var poolWord = regexp.MustCompile(`^pool\d+`)

func fakeZFS(args []string) int {
	var dir string
	for _, arg := range args {
		if pool := poolWord.FindString(arg); pool != "" {
			dir = filepath.Join(os.Getenv(fakeDirVariable), pool)
			break
		}
	}
	held, _ := os.Readlink("/proc/self/fd/3")
	c := call{Args: args, Locale: os.Getenv("LC_ALL"), Held: held}
	if args[0] == "program" {
		stdin, _ := io.ReadAll(os.Stdin)
		c.Stdin, c.Argv = readScript(string(stdin))
	}
	line, _ := json.Marshal(c)
	log, err := os.OpenFile(filepath.Join(dir, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake:", err)
		return 99
	}
	fmt.Fprintf(log, "%s\n", line)
	var results []result
	text, _ := os.ReadFile(filepath.Join(dir, "results"))
	if err := json.Unmarshal(text, &results); err != nil {
		fmt.Fprintln(os.Stderr, "fake:", err)
		return 99
	}
	for _, r := range results {
		if !regexp.MustCompile(r.Match).MatchString(strings.Join(slices.Concat(args, c.Argv), " ")) {
			continue
		}
		fmt.Print(r.Out)
		fmt.Fprint(os.Stderr, r.Err)
		if r.Hang {
			time.Sleep(time.Hour)
		}
		return r.Status
	}
	fmt.Fprintln(os.Stderr, "fake: nothing matches", args)
	return 99
}

var pools atomic.Int64

// fake is the fake ZFS of one test.
type fake struct {
	pool string
	dir  string
}

func newFake(t *testing.T, results ...result) *fake {
	t.Helper()
	f := &fake{pool: fmt.Sprintf("pool%d", pools.Add(1))}
	f.dir = filepath.Join(os.Getenv(fakeDirVariable), f.pool)
	require.NoError(t, os.Mkdir(f.dir, 0o700))
	for i := range results {
		results[i].Out = strings.ReplaceAll(results[i].Out, "POOL", f.pool)
		results[i].Match = strings.ReplaceAll(results[i].Match, "POOL", f.pool)
	}
	text, err := json.Marshal(results)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "results"), text, 0o600))
	return f
}

// client returns a client without probing whether programs can clone.
func (f *fake) client(clones bool) *Client {
	return &Client{pool: f.pool, clones: clones, kind: Command, driver: &commands{pool: f.pool}}
}

// calls returns the calls since the last call of this method.
func (f *fake) calls(t *testing.T) []call {
	t.Helper()
	path := filepath.Join(f.dir, "calls")
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	var calls []call
	for line := range strings.Lines(string(text)) {
		var c call
		require.NoError(t, json.Unmarshal([]byte(line), &c))
		calls = append(calls, c)
	}
	return calls
}

// done is the result of apply.lua without an error.
var done = result{Match: "^program", Out: `{"return":{"errno":0}}`}

// programWords returns the arguments of a channel program. None is on its command
// line.
func programWords(t *testing.T, f *fake, c call) []string {
	t.Helper()
	require.Equal(t, "program", c.Args[0])
	require.Equal(t, []string{"--", f.pool, "-"}, c.Args[len(c.Args)-3:])
	return c.Argv
}

var escape = regexp.MustCompile(`\\\d\d\d`)

// readScript splits a script that contains its arguments, as Lua reads it.
func readScript(text string) (script string, argv []string) {
	script, list, _ := strings.Cut(text, "\nend\nreturn script({ argv = {\n")
	script = strings.TrimPrefix(script, "local function script(...)\n")
	for line := range strings.Lines(list) {
		if text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\",\n"), "\""); ok {
			argv = append(argv, escape.ReplaceAllStringFunc(text, func(digits string) string {
				n, _ := strconv.Atoi(digits[1:])
				return string([]byte{byte(n)})
			}))
		}
	}
	return script, argv
}

// tryCalls returns the log of calls, which may be empty.
func (f *fake) tryCalls() []byte {
	text, _ := os.ReadFile(filepath.Join(f.dir, "calls"))
	return text
}
