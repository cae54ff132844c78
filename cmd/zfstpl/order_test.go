package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOptionsAreReadInAnyOrder(t *testing.T) {
	t.Parallel()
	flags := initCommand().Flags
	for line, want := range map[string]string{
		"":                              "",
		"tank/z":                        "tank/z",
		"tank/z --root /srv -o a=b":     "--root /srv -o a=b tank/z",
		"-o a=b tank/z -o c=d":          "-o a=b -o c=d tank/z",
		"tank/z --root=/srv tank/y":     "--root=/srv tank/z tank/y",
		"tank/z -c":                     "-c tank/z",
		"tank/z -c /x":                  "-c /x tank/z",
		"tank/z --help":                 "--help tank/z",
		"tank/z --root /srv -- --root":  "--root /srv -- tank/z --root",
		"tank/z --config-version 2 two": "--config-version 2 tank/z two",
	} {
		got := optionsFirst(flags, strings.Fields(line))
		assert.Equal(t, want, strings.Join(got, " "), line)
	}
}

func TestInitReadsOptionsAfterTheDataset(t *testing.T) {
	t.Parallel()
	for args, says := range map[string]string{
		"tank/a --root x":                       `"x"`,
		"tank/a -o mountpoint=/x":               "--root",
		"-o atime=on tank/a -o canmount=on":     "-o canmount",
		"tank/a tank/b":                         `"tank/b"`,
		"tank/a --colour blue":                  "colour",
		"tank/a --address relative --root /srv": "relative",
	} {
		_, err := run(t, append([]string{"init", "--config", file(t, "")}, strings.Fields(args)...)...)
		assert.ErrorContains(t, err, says, args)
	}
}
