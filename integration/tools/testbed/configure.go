package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/machine"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/recipe"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/ui"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/wire"
)

// bench is a configured machine and what has to be closed after it ran.
type bench struct {
	config  *machine.Config
	closers []func() error
}

func (b *bench) close() error {
	var err error
	for i := len(b.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, b.closers[i]())
	}
	b.closers = nil
	return err
}

// configure turns the flags of machineFlags into a machine. It builds what is
// missing. The bench is to be closed even if there is an error.
func configure(c *cli.Context, u *ui.UI) (*bench, error) {
	b := &bench{config: &machine.Config{
		Order:       wire.Order{Containerd: c.String("containerd")},
		Say:         u.Say,
		BootTimeout: c.Duration("boot-timeout"),
		Cores:       c.Int("cores"),
	}}
	if err := b.parse(c); err != nil {
		return b, err
	}
	cache, err := recipe.OpenCache()
	if err != nil {
		return b, err
	}
	disks, err := parseDisks(c.StringSlice("disk"), c.StringSlice("keep"), cache.Disks())
	if err != nil {
		return b, err
	}
	artefacts, err := recipe.Build(c.Context, cache, u, c.String("zfs"))
	if err != nil {
		return b, err
	}
	b.config.Kernel, b.config.Modules, b.config.Image = artefacts.Kernel, artefacts.Modules, artefacts.Image
	scratch, err := machine.NewScratch(cache.Runs())
	if err != nil {
		return b, err
	}
	b.closers = append(b.closers, scratch.Close)
	b.config.Scratch = scratch.Dir
	if err := machine.ChooseAgent(c.Context, b.config, cache.Dir); err != nil {
		return b, err
	}
	if err := machine.ChooseAccel(c.Context, b.config, cache.Dir); err != nil {
		return b, err
	}
	return b, b.openFiles(c.String("console"), disks)
}

// parse reads the flags that need nothing but their values.
func (b *bench) parse(c *cli.Context) (err error) {
	config := b.config
	if config.Memory, err = parseSize(c.String("memory")); err != nil {
		return fmt.Errorf("--memory: %w", err)
	}
	if config.Memory < 256<<20 {
		return errors.New("--memory: less than 256M does not boot")
	}
	if config.Cores < 1 {
		return errors.New("--cores: at least one")
	}
	if config.Put, err = each(c.StringSlice("put"), parsePut); err != nil {
		return err
	}
	if config.Order.Env, err = each(c.StringSlice("env"), parseEnv); err != nil {
		return err
	}
	if config.Parameters, err = each(c.StringSlice("zfs-param"), parseParameter); err != nil {
		return err
	}
	if out := c.String("out"); out != "" {
		config.Out, err = filepath.Abs(out)
	}
	return err
}

// openFiles opens the console's file and the disks. What is not kept is in the
// run's directory, which goes away.
func (b *bench) openFiles(console string, disks []diskSpec) error {
	if console != "" {
		file, err := os.Create(console)
		if err != nil {
			return err
		}
		b.closers = append(b.closers, file.Close)
		b.config.Console = file
	}
	for i, spec := range disks {
		path := spec.keep
		if path == "" {
			path = filepath.Join(b.config.Scratch, "disk"+strconv.Itoa(i))
		} else {
			b.config.Order.Keep = true
		}
		disk, err := machine.OpenDisk(path, spec.size)
		if err != nil {
			return err
		}
		b.closers = append(b.closers, disk.Close)
		b.config.Disks = append(b.config.Disks, disk)
	}
	return nil
}
