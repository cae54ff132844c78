// Command app is what the containers of the integration tests run: one small
// static program that does what its arguments say, because the images have no shell.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: app hello | wait | write FILE TEXT | ls | id | euid | self | meet DIR NAME COUNT OTHER")
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
	case "self":
		return self()
	case "ls":
		return list()
	case "meet":
		return meet(args[1], args[2], args[3], args[4])
	case "euid":
		fmt.Printf("Effective uid: %d\n", os.Geteuid())
		return nil
	}
	return fmt.Errorf("app: unknown command %q", args[0])
}

// self prints as whom and where it runs.
func self() error {
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Printf("%d:%d %v in %s on %s\n", os.Getuid(), os.Getgid(), groups, dir, host)
	return nil
}

// meetTime is how long the first one waits for the last one.
const meetTime = 10 * time.Minute

// meet makes a file in a directory and waits until as many as are awaited have done so.
// It looks for them in another directory, which is the same one mounted elsewhere.
func meet(dir, name, count, other string) error {
	want, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
		return err
	}
	for deadline := time.Now().Add(meetTime); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		entries, err := os.ReadDir(other)
		if err != nil {
			return err
		}
		if len(entries) >= want {
			return nil
		}
	}
	return fmt.Errorf("%s waited for %d in %s in vain", name, want, other)
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
