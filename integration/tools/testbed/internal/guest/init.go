package guest

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/wire"
)

// heartbeat is well below what the host takes for a hang.
const heartbeat = 5 * time.Second

// IsInit says whether this process is the first one of a guest.
func IsInit() bool {
	return os.Getpid() == 1 && os.Args[0] == Init
}

// Main runs the guest. It does not return.
func Main() {
	agent := &agent{reaper: newReaper()}
	if err := agent.run(); err != nil {
		complain(err)
		if agent.link != nil {
			// If this fails as well, the host sees the link close.
			_ = agent.link.SendJSON(wire.Exit, wire.Outcome{Err: err.Error()})
		}
	}
	powerOff()
}

// agent is the state of the guest's one run.
type agent struct {
	reaper *reaper
	link   *wire.Writer
	frames *wire.Reader
	order  wire.Order
}

func (a *agent) run() error {
	greeting := wire.Greeting{Agent: uptime()}
	if err := mountKernel(); err != nil {
		return err
	}
	if err := loadModules(ModuleDir); err != nil {
		return err
	}
	if err := a.openLink(); err != nil {
		return err
	}
	if err := enterRoot(); err != nil {
		return err
	}
	if err := a.setUp(); err != nil {
		return err
	}
	greeting.Kernel, greeting.ZFS, greeting.Ready = kernelRelease(), zfsVersion(), uptime()
	if err := a.link.SendJSON(wire.Hello, greeting); err != nil {
		return err
	}
	go a.beat()
	outcome := a.execute()
	if a.order.Keep {
		outcome.Notes = append(outcome.Notes, a.releaseDisks()...)
	}
	return a.link.SendJSON(wire.Exit, outcome)
}

// openLink opens the port and waits for the order.
func (a *agent) openLink() error {
	device, err := findPort(LinkPort)
	if err != nil {
		return err
	}
	port, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	a.link, a.frames = wire.NewWriter(port), wire.NewReader(port)
	frame, err := a.frames.Next()
	if err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if frame.Kind != wire.Start {
		return fmt.Errorf("frame of kind %d before the order", frame.Kind)
	}
	return frame.Decode(&a.order)
}

// setUp makes of the mounted root a system that tests can run in.
func (a *agent) setUp() error {
	if err := mountSystem(); err != nil {
		return err
	}
	if err := os.Setenv("PATH", searchPath); err != nil {
		return err
	}
	input := make(chan error, 1)
	go func() { input <- unpackInput() }()
	zfs := a.reaper.run("modprobe", "zfs")
	if zfs != nil {
		return fmt.Errorf("load ZFS: %w", zfs)
	}
	if err := errors.Join(<-input, linkDisks(), upLoopback()); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("testbed")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	return chooseContainerd(a.order.Containerd)
}

// unpackInput unpacks the archive that the host attached as a disk.
func unpackInput() error {
	device, err := findDisk(InputSerial)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	archive, err := os.Open(device)
	if err != nil {
		return err
	}
	defer archive.Close() // only read
	root, err := os.OpenRoot("/")
	if err != nil {
		return err
	}
	defer root.Close() // a directory
	if err := wire.Unpack(archive, root); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("the guest's root is full: %w", err)
		}
		if errors.Is(err, tar.ErrHeader) {
			return fmt.Errorf("the archive of what to put in is damaged: %w", err)
		}
		return err
	}
	return nil
}

// chooseContainerd links the release's binaries into the search path.
func chooseContainerd(release string) error {
	if err := os.MkdirAll(chosenBin, 0o755); err != nil {
		return err
	}
	if release == "" {
		return nil
	}
	dir := filepath.Join(ContainerdDir+release, "bin")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("containerd %s: %w", release, err)
	}
	for _, entry := range entries {
		if err := os.Symlink(filepath.Join(dir, entry.Name()), filepath.Join(chosenBin, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) beat() {
	for range time.Tick(heartbeat) {
		if err := a.link.Send(wire.Heartbeat, nil); err != nil {
			return // the host is gone, which the command's streams notice as well
		}
	}
}

func uptime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}

func zfsVersion() string {
	version, err := os.ReadFile("/sys/module/zfs/version")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(version))
}

// complain writes to the kernel's log, which goes to the console.
func complain(err error) {
	message := "<2>testbed: " + err.Error() + "\n"
	// There is nowhere else to say it.
	if os.WriteFile("/dev/kmsg", []byte(message), 0) != nil {
		fmt.Fprint(os.Stderr, message)
	}
}
