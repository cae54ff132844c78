package zfs

import (
	"context"
	"strings"
)

// PropertiesOf returns some properties of some file systems, by file system and
// property.
func (c *Client) PropertiesOf(ctx context.Context, filesystems, names []string) (map[string]map[string]Property, error) {
	for _, name := range filesystems {
		if err := checkFilesystem("get", name); err != nil {
			return nil, err
		}
	}
	return c.driver.propertiesOf(ctx, filesystems, names)
}

func (c *commands) propertiesOf(ctx context.Context, filesystems, names []string) (map[string]map[string]Property, error) {
	args := []string{"get", "-Hp", "-o", "name,property,source,value", strings.Join(names, ",")}
	out, err := c.run(ctx, "get", filesystems[0], nil, append(args, filesystems...)...)
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
