package machine

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/guest"
)

// QEMU is the program's name.
const QEMU = "qemu-system-x86_64"

// kernelParameters make every kernel failure end the guest at once: a reboot,
// which QEMU takes for its end.
var kernelParameters = []string{
	"console=ttyS0", "loglevel=5", "rdinit=" + guest.Init,
	"panic=-1", "oops=panic", "spl.spl_panic_halt=1",
	// The clock's watchdog does not understand an emulated one.
	"tsc=reliable",
	// The guest trusts itself, and emulation is slow enough.
	"mitigations=off", "no_timer_check", "random.trust_cpu=on", "audit=0", "raid=noautodetect",
}

// arguments returns QEMU's command line. The link is descriptor 3, the
// console its standard output.
func (c *Config) arguments(initramfs, input string) []string {
	args := []string{
		"-no-user-config", "-nodefaults", "-display", "none", "-nic", "none", "-no-reboot",
		"-machine", "q35,usb=off,vmport=off,hpet=off",
		"-m", strconv.FormatInt(c.Memory>>20, 10) + "M",
		"-smp", strconv.Itoa(c.Cores),
		"-kernel", c.Kernel, "-initrd", initramfs,
		"-append", strings.Join(append(append([]string{}, kernelParameters...), c.Parameters...), " "),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "socket,id=link,fd=3",
		"-device", "virtio-serial-pci",
		"-device", "virtserialport,chardev=link,name=" + guest.LinkPort,
	}
	if c.Accel == "kvm" {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	} else {
		args = append(args, "-accel", "tcg,thread=multi", "-cpu", "EPYC")
	}
	args = append(args, drive(guest.RootSerial, c.Image, "snapshot=on")...)
	if input != "" {
		args = append(args, drive(guest.InputSerial, input, "readonly=on")...)
	}
	for i, disk := range c.Disks {
		args = append(args, drive(guest.DiskSerial+strconv.Itoa(i), disk.Path, "discard=unmap")...)
	}
	return args
}

// drive returns the arguments of a disk. An error of the host's is one of the
// guest's: QEMU would else stop the guest for ever when the host's disk is
// full. What the guest wrote is in the host's page cache, where it survives
// QEMU, so there is no need to wait for the host's disk ("unsafe").
func drive(serial, path, option string) []string {
	return []string{
		"-drive", fmt.Sprintf("if=none,id=%s,file=%s,format=raw,cache=unsafe,%s", serial, strings.ReplaceAll(path, ",", ",,"), option),
		"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s,werror=report,rerror=report", serial, serial),
	}
}

// socketPair returns our end of the link, which has deadlines, and QEMU's.
func socketPair() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(pair[0]), "link"), os.NewFile(uintptr(pair[1]), "link"), nil
}

// command returns QEMU, to be started in dir, where it may write.
func (c *Config) command(dir, initramfs, input string, link *os.File, console *console, complaints *console) *exec.Cmd {
	cmd := exec.Command(QEMU, c.arguments(initramfs, input)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.ExtraFiles = []*os.File{link}
	cmd.Stdout, cmd.Stderr = console, complaints
	return cmd
}
