package holders

import "fmt"

// User is a process that uses a file system.
type User struct {
	PID     int
	Command string // its comm
	Use     string // such as "open /run/x/file (deleted)"
}

// String returns the user in words.
func (u User) String() string { return fmt.Sprintf("%s (pid %d): %s", u.Command, u.PID, u.Use) }
