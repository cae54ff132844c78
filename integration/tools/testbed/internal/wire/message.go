package wire

import "time"

// Order is what the guest is to do.
type Order struct {
	Args []string `json:"args"`
	// Env is added to the guest's own environment, "K=V".
	Env []string `json:"env,omitempty"`
	// Dir is where the command starts; empty means HOME.
	Dir string `json:"dir,omitempty"`
	// TTY gives the command a terminal of the size Window.
	TTY    bool   `json:"tty,omitempty"`
	Window Window `json:"window,omitzero"`
	// Stdin says that Stdin frames will come; otherwise it is empty.
	Stdin bool `json:"stdin,omitempty"`
	// Out is the directory to bring back; empty means none.
	Out string `json:"out,omitempty"`
	// Containerd names the release to link into PATH, as in "2.4".
	Containerd string `json:"containerd,omitempty"`
	// Keep says that a disk outlives the guest, so that pools are exported
	// and file systems unmounted before it powers off.
	Keep bool `json:"keep,omitempty"`
}

// Window is the size of a terminal.
type Window struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Greeting is what the guest says of itself.
type Greeting struct {
	Kernel string `json:"kernel"`
	// ZFS is the version of the loaded module.
	ZFS string `json:"zfs"`
	// Agent and Ready are the guest's uptime when its agent started, and when
	// it was ready for the command.
	Agent time.Duration `json:"agent"`
	Ready time.Duration `json:"ready"`
}

// Outcome is how the command ended.
type Outcome struct {
	// Code is its exit status, or 128 and the signal's number.
	Code int `json:"code"`
	// Err says why there is no exit status of the command, or why its output
	// could not be brought back.
	Err string `json:"err,omitempty"`
	// Notes are remarks for a person, such as a full disk.
	Notes []string `json:"notes,omitempty"`
}
