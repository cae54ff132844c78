//go:build linux

package main

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"strconv"

	"github.com/zfstpl/zfstpl/integration/tools/image/recipe"
)

// committed is the name of the image the tour makes itself.
const committed = "docker.io/zfstpl/demo:2"

// changes is what the second container does to its files, and the arithmetic of
// it: the program counts the words of the directory.
const changes = `cd ` + recipe.Words + `
echo three more words >> plain.txt
rm "a name with spaces.txt"
echo a new file > new.txt
ln plain.txt linked.txt
chmod 600 empty.txt
rm -r ../kinds/made-anew
mv ../NEWS ../HISTORY`

const (
	// moreFiles: one deleted, one created, one linked.
	moreFiles = -1 + 1 + 1
	// moreWords: three appended, four deleted with their file, three created,
	// and the nine of plain.txt and the three appended once more by the link.
	moreWords = 3 - 4 + 3 + (9 + 3)
)

// proof fails unless the changes are there, and has the program count.
const proof = `cd ` + recipe.Words + `
test ! -e "a name with spaces.txt"
test plain.txt -ef linked.txt
test "$(stat -c "%a %h" empty.txt)" = "600 1"
test "$(stat -c "%a %h" plain.txt)" = "644 2"
test ! -e ../kinds/made-anew
test -e ../HISTORY -a ! -e ../NEWS
exec ` + recipe.Command

// runContainer runs a container to its end. Its files must not lie where a
// containerd of the machine keeps its own.
func (t *tour) runContainer(ctx context.Context, flags []string, image, id string, command ...string) (string, error) {
	args := append([]string{"ctr", "run", "--snapshotter", t.snapshotterName(), "--fifo-dir", t.path("fifo")}, flags...)
	args = append(args, image, id)
	return t.do(ctx, append(args, command...)...)
}

func (t *tour) runFirst(ctx context.Context) error {
	out, err := t.runContainer(ctx, []string{"--rm"}, recipe.Reference, "first")
	if err != nil {
		return err
	}
	if t.first, err = parseOutput(out); err != nil {
		return err
	}
	t.say("right: 2262 primes, and pi to 50 digits")
	return nil
}

func (t *tour) runSecond(ctx context.Context) error {
	_, err := t.runContainer(ctx, nil, recipe.Reference, "second", "sh", "-exc", changes)
	return err
}

func (t *tour) runThird(ctx context.Context) error {
	out, err := t.runContainer(ctx, nil, committed, "third", "sh", "-ec", proof)
	if err != nil {
		return err
	}
	if t.second, err = parseOutput(out); err != nil {
		return err
	}
	want := computed{files: t.first.files + moreFiles, words: t.first.words + moreWords}
	if t.second != want {
		return fmt.Errorf("the new image counts %+v, want %+v", t.second, want)
	}
	t.say("right: %d files are now %d, %d words are now %d", t.first.files, want.files, t.first.words, want.words)
	return nil
}

// computed is the part of the program's output that depends on its files.
type computed struct{ files, words int }

var output = regexp.MustCompile(`(?m)\Apython 3\.\d+\.\d+
primes below 20000: 2262, the last 19997
pi: 3\.14159265358979323846264338327950288419716939937510
words: (\d+) in (\d+) files
\z`)

// parseOutput checks what the image's program prints.
func parseOutput(text string) (computed, error) {
	match := output.FindStringSubmatch(text)
	if match == nil {
		return computed{}, fmt.Errorf("%s printed something else:\n%s", path.Base(recipe.Command), text)
	}
	words, err := strconv.Atoi(match[1])
	if err != nil {
		return computed{}, err
	}
	files, err := strconv.Atoi(match[2])
	return computed{files: files, words: words}, err
}
