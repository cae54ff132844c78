//go:build linux

// The image command makes the OCI image of the demo and the integration tests
// from Debian packages, or finds it in its cache.
//
//	go run ./integration/tools/image --print             the path of the tar, made if need be
//	go run ./integration/tools/image --layers            what the layers are
//	go run ./integration/tools/image --output demo.tar   a copy, with demo.rootfs.jsonl beside it
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/integration/tools/image/recipe"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := &cli.App{
		Name:            "image",
		Usage:           "make the demo's OCI image from Debian packages",
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Usage: "copy the tar to `FILE`, and its manifest beside it", TakesFile: true},
			&cli.BoolFlag{Name: "layers", Usage: "list the layers on standard output"},
			&cli.BoolFlag{Name: "print", Usage: "print nothing but the tar's path on standard output"},
			&cli.BoolFlag{Name: "rebuild", Usage: "make the image anew though the cache has it"},
		},
		Action: run,
	}
	if err := app.RunContext(ctx, os.Args); err != nil {
		if errors.Is(err, context.Canceled) {
			err = fmt.Errorf("interrupted: %w", err)
		}
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q", c.Args().First())
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	image, err := recipe.Make(c.Context, recipe.Options{
		Cache:    filepath.Join(cache, "zfstpl", "image"),
		Rebuild:  c.Bool("rebuild"),
		Progress: os.Stderr,
	})
	if err != nil {
		return err
	}
	if output := c.String("output"); output != "" {
		if image, err = export(image, output); err != nil {
			return err
		}
	}
	return report(c, image)
}

// export copies the image out of the cache and returns it as it is there.
func export(image *recipe.Image, output string) (*recipe.Image, error) {
	copied := *image
	copied.Tar = output
	copied.Rootfs = strings.TrimSuffix(output, ".tar") + ".rootfs.jsonl"
	if err := copyFile(image.Tar, copied.Tar); err != nil {
		return nil, err
	}
	return &copied, copyFile(image.Rootfs, copied.Rootfs)
}

// copyFile replaces to as a whole or not at all.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".image-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(out.Name()))
		}
	}()
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	if err := errors.Join(out.Chmod(0o644), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}

func report(c *cli.Context, image *recipe.Image) error {
	if c.Bool("print") {
		_, err := fmt.Println(image.Tar)
		return err
	}
	if c.Bool("layers") {
		return listLayers(os.Stdout, image.Layers)
	}
	_, err := fmt.Printf("image     %s\ntar       %s\nmanifest  %s\n", recipe.Reference, image.Tar, image.Rootfs)
	return err
}

func listLayers(w io.Writer, layers []recipe.Layer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LAYER\tBLOB\tTAR\tCHAIN ID\tDIFF ID\tWHAT")
	for _, l := range layers {
		fmt.Fprintf(table, "%s\t%.1f MB\t%.1f MB\t%s\t%s\t%s\n", l.Name,
			float64(l.Size)/1e6, float64(l.Uncompressed)/1e6, l.ChainID, l.DiffID, l.About)
	}
	return table.Flush()
}
