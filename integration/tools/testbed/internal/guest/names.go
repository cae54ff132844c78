package guest

// What the host and the agent agree on.
const (
	// Init is the agent's path in the initramfs, and ModuleDir is where the
	// kernel modules are that it needs before it has a root.
	Init      = "/testbed-agent"
	ModuleDir = "/modules"

	// LinkPort is the name of the virtio-serial port.
	LinkPort = "testbed"

	// The serial numbers of the disks: the root, the tar archive with what is
	// put in, and DiskSerial and a number for the extra ones.
	RootSerial  = "root"
	InputSerial = "input"
	DiskSerial  = "disk"

	// DiskDir has a link to the partition of each extra disk: disk0, disk1, …
	DiskDir = "/dev/testbed"

	// PutDir is where files go by default, OutDir what is brought back.
	PutDir = "/put"
	OutDir = "/out"

	// ContainerdDir and a release name the directory of its binaries' "bin".
	ContainerdDir = "/opt/containerd-"
)

// searchPath begins with the chosen containerd.
const searchPath = "/run/testbed/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const chosenBin = "/run/testbed/bin"
