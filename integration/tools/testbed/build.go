package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/recipe"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/ui"
)

func buildCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "build",
		Usage: "build what is missing, and say what it is",
		Flags: []cli.Flag{
			zfsFlag(),
			&cli.BoolFlag{Name: "all", Usage: "for every ZFS release"},
			&cli.BoolFlag{Name: "refresh", Usage: "build everything anew, of what Debian serves now"},
		},
		Action: func(c *cli.Context) error {
			cache, err := recipe.OpenCache()
			if err != nil {
				return err
			}
			releases := []string{c.String("zfs")}
			if c.Bool("all") {
				releases = recipe.ZFSReleases()
			}
			if c.Bool("refresh") {
				for _, release := range releases {
					if err := recipe.Refresh(c.Context, cache, u, release); err != nil {
						return err
					}
				}
			}
			for _, release := range releases {
				artefacts, err := recipe.Build(c.Context, cache, u, release)
				if err != nil {
					return err
				}
				u.Say("ready: Linux %s, ZFS %s, containerd %s and Debian's %s",
					artefacts.KernelVersion, artefacts.ZFSVersion, recipe.ContainerdVersion, artefacts.DebianContainerd)
			}
			return nil
		},
	}
}

func pathCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "path",
		Usage:     "build what is missing, and print where something is",
		ArgsUsage: "cache|disks|kernel|image|containerd|buildkit|docker|kubernetes",
		Flags:     []cli.Flag{zfsFlag()},
		Action: func(c *cli.Context) error {
			cache, err := recipe.OpenCache()
			if err != nil {
				return err
			}
			path, err := locate(c, u, cache)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(os.Stdout, path)
			return err
		},
	}
}

func locate(c *cli.Context, u *ui.UI, cache *recipe.Cache) (string, error) {
	what := c.Args().First()
	switch what {
	case "cache":
		return cache.Dir, nil
	case "disks":
		return cache.Disks(), nil
	case "containerd", "buildkit", "docker", "kubernetes":
		return recipe.BuildPrograms(c.Context, cache, u, what)
	case "kernel", "image":
	default:
		return "", fmt.Errorf("path of %q: want cache, disks, kernel, image, containerd, buildkit, docker or kubernetes", what)
	}
	artefacts, err := recipe.Build(c.Context, cache, u, c.String("zfs"))
	if what == "kernel" {
		return artefacts.Kernel, err
	}
	return artefacts.Image, err
}

func cleanCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "clean",
		Usage: "remove from the cache what the recipe does not need any more; kept disks stay",
		Action: func(c *cli.Context) error {
			cache, err := recipe.OpenCache()
			if err != nil {
				return err
			}
			return cache.Prune(c.Context, u.Say)
		},
	}
}
