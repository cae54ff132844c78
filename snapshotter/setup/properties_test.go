package setup

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// docs/zfs.md has a row for each decision, in the same order.
func TestDecisionsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/zfs.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "## Properties of a base\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	got := regexp.MustCompile("(?m)^\\| `.*$").FindAllString(section, -1)
	var want []string
	for _, d := range decisions {
		want = append(want, d.row())
	}
	assert.Equal(t, strings.Join(want, "\n"), strings.Join(got, "\n"))
}

// row returns a decision as a row of the table.
func (d decision) row() string {
	var values []string
	for _, c := range d.choices {
		value := "`" + c.value + "`"
		if c.since != (zfs.Release{}) {
			value += " (" + c.since.String() + ")"
		}
		values = append(values, value)
	}
	set, reported := strings.Join(values, ", else "), ""
	if len(values) == 0 {
		set = "–"
	}
	if d.harm != "" {
		reported = d.harm
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |", d.property, set, d.why, reported)
}
