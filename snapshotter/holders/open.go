package holders

import "fmt"

// User is a process that uses a file system.
type User struct {
	PID     int
	Command string // as its comm says
	Use     string // what by, such as "open /run/x/file (deleted)"
}

// String is the user in words.
func (u User) String() string { return fmt.Sprintf("%s (pid %d): %s", u.Command, u.PID, u.Use) }
