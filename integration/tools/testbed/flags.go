package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/guest"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/machine"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/recipe"
)

func zfsFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "zfs", EnvVars: []string{"ZFS"}, Value: recipe.DefaultZFS,
		Usage: "the OpenZFS `RELEASE`: " + strings.Join(recipe.ZFSReleases(), " or "),
		Action: func(_ *cli.Context, release string) error {
			return recipe.CheckRelease("ZFS", release, recipe.ZFSReleases())
		},
	}
}

// machineFlags are those of every command that boots a machine.
func machineFlags() []cli.Flag {
	return []cli.Flag{
		zfsFlag(),
		&cli.StringFlag{
			Name: "containerd", EnvVars: []string{"CONTAINERD"}, Value: recipe.DefaultContainerd,
			Usage: "the containerd `RELEASE` in PATH: " + strings.Join(recipe.ContainerdReleases(), " or "),
			Action: func(_ *cli.Context, release string) error {
				return recipe.CheckRelease("containerd", release, recipe.ContainerdReleases())
			},
		},
		&cli.StringFlag{Name: "memory", Value: "2G", Usage: "the machine's memory, as `SIZE`"},
		&cli.IntFlag{Name: "cores", Value: min(2, runtime.NumCPU()), Usage: "the `NUMBER` of its processors"},
		&cli.StringSliceFlag{Name: "disk", Usage: "an extra disk of the `SIZE` with one partition, " + guest.DiskDir + "/disk0 and so on; repeatable"},
		&cli.StringSliceFlag{Name: "keep", Usage: "keep the first, second, … extra disk in the cache as `NAME`, or in a file if that has a slash, and use it again if it exists; repeatable"},
		&cli.StringSliceFlag{Name: "put", Usage: "put `HOST[:GUEST]`, a file or a directory, in; " + guest.PutDir + " is the default place; repeatable"},
		&cli.StringFlag{Name: "out", Usage: "bring back what is in $TESTBED_OUT in the end, to `DIR`"},
		&cli.StringSliceFlag{Name: "env", Usage: "set `K=V` in the environment, or pass on K; repeatable"},
		&cli.StringSliceFlag{Name: "zfs-param", Usage: "load ZFS with the module parameter `K=V`; repeatable"},
		&cli.DurationFlag{Name: "boot-timeout", Value: 3 * time.Minute, Usage: "the longest `TIME` until the command starts"},
		&cli.StringFlag{Name: "console", Usage: "write the machine's console to `FILE`"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "say what runs and how long it took"},
	}
}

var sizePattern = regexp.MustCompile(`^([0-9]{1,12})([KMGT]?)(?:i?B)?$`)

// parseSize reads a size with a binary unit, as in 512M.
func parseSize(text string) (int64, error) {
	match := sizePattern.FindStringSubmatch(strings.TrimSpace(text))
	if match == nil {
		return 0, fmt.Errorf("size %q: want a number and K, M, G or T", text)
	}
	number, err := strconv.ParseInt(match[1], 10, 64)
	if err != nil {
		return 0, err
	}
	shift := 10 * (1 + strings.Index("KMGT", match[2]))
	if match[2] == "" {
		shift = 0
	}
	if number > (1<<62)>>shift {
		return 0, fmt.Errorf("size %q: too large", text)
	}
	return number << shift, nil
}

// parsePut reads HOST[:GUEST]. A guest path that ends in a slash, or none, is
// the directory that it is put into.
func parsePut(text string) (machine.Put, error) {
	host, inGuest, _ := strings.Cut(text, ":")
	if host == "" {
		return machine.Put{}, fmt.Errorf("--put %q: no file", text)
	}
	host, err := filepath.Abs(host)
	if err != nil {
		return machine.Put{}, err
	}
	if _, err := os.Stat(host); err != nil {
		return machine.Put{}, fmt.Errorf("--put: %w", err)
	}
	if inGuest == "" {
		inGuest = guest.PutDir + "/"
	}
	if !path.IsAbs(inGuest) {
		return machine.Put{}, fmt.Errorf("--put %q: the path in the guest is not absolute", text)
	}
	if strings.HasSuffix(inGuest, "/") {
		inGuest = path.Join(inGuest, filepath.Base(host))
	}
	return machine.Put{Host: host, Guest: path.Clean(inGuest)}, nil
}

// parseEnv reads K=V, or takes the value of K from our own environment.
func parseEnv(text string) (string, error) {
	name, _, hasValue := strings.Cut(text, "=")
	if name == "" || strings.ContainsAny(text, "\x00") {
		return "", fmt.Errorf("--env %q: want K=V or K", text)
	}
	if hasValue {
		return text, nil
	}
	value, found := os.LookupEnv(name)
	if !found {
		return "", fmt.Errorf("--env %s: it is not set", name)
	}
	return name + "=" + value, nil
}

var parameterPattern = regexp.MustCompile(`^[a-z0-9_]+=[^\s"]+$`)

// parseParameter turns K=V into what the kernel's command line says.
func parseParameter(text string) (string, error) {
	if !parameterPattern.MatchString(text) {
		return "", fmt.Errorf("--zfs-param %q: want K=V", text)
	}
	return "zfs." + text, nil
}

// diskSpec is an extra disk as the user asked for it.
type diskSpec struct {
	// size is zero for that of an image that exists.
	size int64
	// keep is the image's path, empty for one that is thrown away.
	keep string
}

// parseDisks joins --disk and --keep, the n-th with the n-th. What is kept
// needs no size once it exists.
func parseDisks(sizes, keeps []string, dir string) ([]diskSpec, error) {
	disks := make([]diskSpec, max(len(sizes), len(keeps)))
	for i, text := range sizes {
		size, err := parseSize(text)
		if err != nil {
			return nil, fmt.Errorf("--disk: %w", err)
		}
		disks[i].size = size
	}
	for i, name := range keeps {
		image, err := keptImage(name, dir)
		if err != nil {
			return nil, fmt.Errorf("--keep %q: %w", name, err)
		}
		disks[i].keep = image
		if info, err := os.Stat(image); disks[i].size == 0 && (err != nil || info.Size() == 0) {
			return nil, fmt.Errorf("--keep %q: it is new, so it needs a --disk with a size", name)
		}
	}
	return disks, nil
}

func keptImage(name, dir string) (string, error) {
	switch {
	case name == "" || name == "." || name == "..":
		return "", errors.New("no name")
	case strings.Contains(name, "/"):
		return filepath.Abs(name)
	}
	return filepath.Join(dir, name+".img"), nil
}

// each parses every one of a flag's values.
func each[T any](values []string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for _, value := range values {
		parsed, err := parse(value)
		if err != nil {
			return nil, err
		}
		all = append(all, parsed)
	}
	return all, nil
}
