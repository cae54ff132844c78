package recipe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// stage is one step of the recipe.
type stage struct {
	// name is also that of its artefact: lower-case letters, digits, dots.
	name string
	// title says what is being done: "building ZFS 2.4".
	title string
	// inputs are all that its result depends on, other than the stages that it
	// uses: package lists, scripts, versions.
	inputs []string
	uses   []*stage
	// expected is a guess of its duration, for the user who watches.
	expected time.Duration
	// build writes the result into the job's out directory.
	build func(ctx context.Context, j *job) error
}

const keyLength = 12

// key is a hash of all that the result depends on. Lengths are hashed as
// well, so that no two lists of inputs look the same.
func (s *stage) key() string {
	hash := sha256.New()
	write := func(text string) { fmt.Fprintf(hash, "%d:%s,", len(text), text) }
	write(s.name)
	fmt.Fprintf(hash, "%d;", len(s.inputs))
	for _, input := range s.inputs {
		write(input)
	}
	for _, used := range s.uses {
		write(used.key())
	}
	return hex.EncodeToString(hash.Sum(nil))[:keyLength]
}
