// Command app is what the containers of the integration tests run: one small
// static program that does what it is told, because the images have no shell.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: app hello | wait | write FILE TEXT | ls | id")
	}
	switch args[0] {
	case "hello":
		fmt.Println("hello from", filepath.Base(os.Args[0]))
		return nil
	case "wait": // for SIGTERM
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
		fmt.Println("waiting")
		<-stop
		return nil
	case "write":
		return os.WriteFile(args[1], []byte(args[2]), 0o644)
	case "id":
		fmt.Printf("%d:%d\n", os.Getuid(), os.Getgid())
		return nil
	case "ls":
		return list()
	}
	return fmt.Errorf("app: unknown command %q", args[0])
}

// list prints the files of the image, one a line.
func list() error {
	return filepath.WalkDir("/", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == "/proc" || path == "/sys" || path == "/dev" || path == "/run" {
			return filepath.SkipDir
		}
		if !d.IsDir() {
			fmt.Println(path)
		}
		return nil
	})
}
