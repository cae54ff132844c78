package zfs

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// Create creates a file system with native and user properties, and does not mount it.
// It is for setting up a base; clones inherit their properties.
func (c *Client) Create(ctx context.Context, filesystem string, props map[string]string) error {
	if err := checkFilesystem("create", filesystem); err != nil {
		return err
	}
	args := append([]string{"create", "-u"}, options(props)...)
	_, err := c.command().run(ctx, "create", filesystem, nil, append(args, filesystem)...)
	return err
}

func options(props map[string]string) []string {
	var args []string
	for _, name := range slices.Sorted(maps.Keys(props)) {
		args = append(args, "-o", name+"="+props[name])
	}
	return args
}

// Mount mounts a file system at its mountpoint. A mounted file system stays
// mounted.
func (c *Client) Mount(ctx context.Context, filesystem string) error {
	if err := checkFilesystem("mount", filesystem); err != nil {
		return err
	}
	defer c.around("mount")()
	_, err := c.command().run(ctx, "mount", filesystem, nil, "mount", filesystem)
	return err
}

// SetNative sets native properties of a file system. It mounts and unmounts nothing:
// mounts of containers stay, even if the mountpoint changes.
func (c *Client) SetNative(ctx context.Context, filesystem string, props map[string]string) error {
	if err := checkFilesystem("set", filesystem); err != nil {
		return err
	}
	if err := c.inPool("set", filesystem); err != nil {
		return err
	}
	return c.driver.set(context.WithoutCancel(ctx), filesystem, props)
}

// Property is a property of a dataset. Local is true if it is set on the dataset, and
// false if it is inherited or a default.
type Property struct {
	Value string
	Local bool
}

// Properties returns some native and user properties of a file system.
func (c *Client) Properties(ctx context.Context, filesystem string, names ...string) (map[string]Property, error) {
	if err := checkFilesystem("get", filesystem); err != nil {
		return nil, err
	}
	out, err := c.command().run(ctx, "get", filesystem, nil,
		"get", "-Hp", "-o", "property,source,value", strings.Join(names, ","), filesystem)
	if err != nil {
		return nil, err
	}
	found := make(map[string]Property)
	for _, row := range lines(out) {
		if len(row) == 3 {
			found[row[0]] = Property{Value: row[2], Local: isLocal(row[1])}
		}
	}
	return found, nil
}

// PropertiesOf returns some properties of some file systems, by file system and
// property.
func (c *Client) PropertiesOf(ctx context.Context, filesystems, names []string) (map[string]map[string]Property, error) {
	for _, name := range filesystems {
		if err := checkFilesystem("get", name); err != nil {
			return nil, err
		}
	}
	args := []string{"get", "-Hp", "-o", "name,property,source,value", strings.Join(names, ",")}
	out, err := c.command().run(ctx, "get", filesystems[0], nil, append(args, filesystems...)...)
	if err != nil {
		return nil, err
	}
	found := make(map[string]map[string]Property)
	for _, row := range lines(out) {
		if len(row) != 4 {
			continue
		}
		if found[row[0]] == nil {
			found[row[0]] = make(map[string]Property)
		}
		found[row[0]][row[1]] = Property{Value: row[3], Local: isLocal(row[2])}
	}
	return found, nil
}

// isLocal reports whether a source is the file system itself.
func isLocal(source string) bool { return source == "local" || source == "received" }
