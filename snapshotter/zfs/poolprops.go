package zfs

import (
	"context"
	"strings"
)

// featurePrefix begins the names of the pool properties of features.
const featurePrefix = "feature@"

// Features reports which of the named features are enabled in the client's pool. A
// pool lacks a feature that its "compatibility" excludes, or that is newer than the
// pool.
func (c *Client) Features(ctx context.Context, names ...string) (map[string]bool, error) {
	properties := make([]string, len(names))
	for i, name := range names {
		properties[i] = featurePrefix + name
	}
	states, err := c.driver.poolProperties(ctx, properties)
	if err != nil {
		return nil, err
	}
	enabled := make(map[string]bool)
	for name, state := range states {
		enabled[strings.TrimPrefix(name, featurePrefix)] = state == "enabled" || state == "active"
	}
	return enabled, nil
}

// Altroot returns the directory below which the pool is imported ('zpool import -R'),
// or "". ZFS mounts a file system at its mountpoint below that directory. The
// mountpoint that ZFS shows begins with the directory; the one that is set does not.
func (c *Client) Altroot(ctx context.Context) (string, error) {
	const altroot = "altroot"
	found, err := c.driver.poolProperties(ctx, []string{altroot})
	if err != nil || found[altroot] == "-" {
		return "", err
	}
	return found[altroot], nil
}

func (c *commands) poolProperties(ctx context.Context, names []string) (map[string]string, error) {
	out, err := c.exec(ctx, "zpool", "get", c.pool, nil, "get", "-Hp", "-o", "property,value", strings.Join(names, ","), c.pool)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for _, row := range lines(out) {
		if len(row) == 2 {
			found[row[0]] = row[1]
		}
	}
	return found, nil
}
