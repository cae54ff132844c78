package setup

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// decision describes what zfstpl does about a property that a base would inherit from the
// dataset above it.
type decision struct {
	property string
	// choices are the values that Init sets: the first one that the ZFS release and
	// the pool support. If there are none, the administrator decides.
	choices []choice
	// fine are other harmless values. A start reports a value that is neither chosen nor
	// fine, if harm describes its effect.
	fine []string
	harm string
	// once reports that the property can only be set when a file system is created.
	once bool
	// perFilesystem reports that a new file system copies the value from its parent. Later
	// changes of the parent do not affect it.
	perFilesystem bool
	why           string // for docs/zfs.md
}

// choice is a value of a property and its requirements.
type choice struct {
	value   string
	since   zfs.Release // first release with the property or the value
	feature string      // required feature of the pool
}

var (
	release23 = zfs.Release{Major: 2, Minor: 3}
	release24 = zfs.Release{Major: 2, Minor: 4}
)

func always(value string) []choice { return []choice{{value: value}} }

// decisions has every property of zfsprops(7), as of 2.4, that a new file system inherits
// from its parent. docs/zfs.md has the same table; a test compares them.
var decisions = []decision{
	// Properties that affect images and containers.
	{property: "normalization", choices: always("none"), once: true, harm: "names that differ only in normalization replace each other",
		why: "file names of an image are stored unchanged"},
	{property: "utf8only", choices: always("off"), once: true, harm: "a layer with a name that is not UTF-8 cannot be unpacked",
		why: "file names of an image need not be UTF-8; not set if `normalization` is given, which implies its value"},
	{property: "casesensitivity", choices: always("sensitive"), once: true, harm: "names that differ only in case replace each other",
		why: "file names of an image may differ only in case"},
	{property: "snapdir", choices: []choice{{value: "disabled", since: release23}, {value: "hidden"}}, harm: "containers can read snapshots of their root in /.zfs",
		why: "no `/.zfs` in a container; before 2.3 there is only `hidden`, which hides the name"},
	{property: "acltype", choices: always("posix"), harm: "ACLs of an image are refused", why: "layers have POSIX ACLs"},
	{property: "xattr", choices: always("sa"), fine: []string{"on", "dir"}, harm: "file capabilities and labels of an image are refused",
		why: "layers have extended attributes; `sa` stores them in the inode, not in a hidden directory"},
	{property: "exec", choices: always("on"), harm: "programs of an image cannot be executed", why: "containers execute programs"},
	{property: "setuid", choices: always("on"), harm: "setuid programs and file capabilities have no effect", why: "images have setuid programs"},
	{property: "devices", choices: always("on"), harm: "containers cannot use device files", why: "containers have device files"},
	{property: "readonly", choices: always("off"), harm: "nothing can be written", why: "containers write"},
	{property: "longname", choices: []choice{{value: "off", since: release23, feature: "longname"}}, harm: "containers can create names longer than 255 bytes, which other file systems cannot store",
		why: "a layer with a name longer than 255 bytes cannot be unpacked on other file systems"},
	{property: "nbmand", choices: always("off"), harm: "file systems are mounted with mandatory locks", why: "Linux no longer has mandatory locks, and older kernels refuse the mount"},
	{property: "zoned", choices: always("off"), harm: "ZFS does not mount the base", why: "the host mounts the base and the containers' roots"},
	{property: "sharenfs", choices: always("off"), harm: "the base is exported by NFS", why: "the base must not be shared"},
	{property: "sharesmb", choices: always("off"), harm: "the base is shared by SMB", why: "the base must not be shared"},
	defaultQuota("defaultuserquota"), defaultQuota("defaultuserobjquota"),
	defaultQuota("defaultgroupquota"), defaultQuota("defaultgroupobjquota"),
	defaultQuota("defaultprojectquota"), defaultQuota("defaultprojectobjquota"),

	// Properties with a good value for containers; other values are harmless.
	{property: "atime", choices: always("off"), why: "reading a file causes no write"},
	{property: "compression", choices: []choice{{value: "lz4", feature: "lz4_compress"}, {value: "on"}}, why: "costs little CPU time; `-o compression=zstd` compresses better; `on` if the pool lacks `lz4_compress`"},
	{property: "dnodesize", choices: []choice{{value: "auto", feature: "large_dnode"}}, why: "space for extended attributes in the inode; only if the pool has `large_dnode`"},
	{property: "com.sun:auto-snapshot", choices: always("false"), why: "opts out of zfs-auto-snapshot"},

	// Properties that the administrator decides.
	{property: "checksum", why: "policy"},
	{property: "copies", why: "policy"},
	{property: "dedup", why: "policy"},
	{property: "encryption", why: "policy; `-o encryption=on` with its options gives the base its own key"},
	{property: "redundant_metadata", why: "policy"},
	{property: "sync", why: "policy; it determines what fsync guarantees. A start sets `standard` on the base for the log, and gives `storage` and `runtime` the value that they had"},
	{property: "direct", why: "performance"},
	{property: "logbias", why: "performance. A start sets `latency` on the base for the log, and gives `storage` and `runtime` the value that they had"},
	{property: "prefetch", why: "performance"},
	{property: "primarycache", why: "performance"},
	{property: "recordsize", why: "performance"},
	{property: "secondarycache", why: "performance"},
	{property: "special_small_blocks", why: "performance"},
	{property: "overlay", why: "with `off`, ZFS does not mount the base on a directory with files in it; mounts of containers ignore it"},
	{property: "relatime", why: "no effect with `atime=off`"},
	{property: "aclinherit", why: "no effect; it is for NFSv4 ACLs"},
	{property: "aclmode", why: "no effect; it is for NFSv4 ACLs"},
	{property: "mlslabel", why: "no effect on Linux"},
	{property: "vscan", why: "no effect on Linux"},
	{property: "snapdev", why: "for volumes only"},
	{property: "volmode", why: "for volumes only"},
}

// defaultQuota returns the decision about a default quota of users, groups or projects.
// zfsprops(7) does not list these as inherited, but a new file system has its parent's.
func defaultQuota(property string) decision {
	return decision{property: property, choices: []choice{{value: "none", since: release24}}, fine: []string{"0"}, perFilesystem: true,
		harm: "a user in a container gets EDQUOT although the container is below its quota",
		why:  "only `container_quota` limits a container"}
}

// choose returns the first value that the release and the features support, and whether
// there is one. If features is nil, all features are supported.
func (d decision) choose(release zfs.Release, features map[string]bool) (string, bool) {
	for _, c := range d.choices {
		if release.AtLeast(c.since) && (c.feature == "" || features == nil || features[c.feature]) {
			return c.value, true
		}
	}
	return "", false
}

// harms reports whether a value is harmful. want is the chosen value.
func (d decision) harms(value, want string) bool {
	return d.harm != "" && value != want && value != "-" && !slices.Contains(d.fine, value)
}

// baseProperties returns the properties of a new base mounted at root, as the pool's release and
// features allow. own are the administrator's properties, which override the others.
func baseProperties(ctx context.Context, pool Pool, root string, own map[string]string) (map[string]string, error) {
	release, err := pool.Release(ctx)
	if err != nil {
		return nil, err
	}
	var needed []string
	for _, d := range decisions {
		for _, c := range d.choices {
			if c.feature != "" {
				needed = append(needed, c.feature)
			}
		}
	}
	features, err := pool.Features(ctx, needed...)
	if err != nil {
		return nil, err
	}
	props := make(map[string]string)
	for _, d := range decisions {
		if value, ok := d.choose(release, features); ok {
			props[d.property] = value
		}
	}
	if _, normalized := own["normalization"]; normalized {
		delete(props, "utf8only") // ZFS accepts only the value that normalization implies
	}
	props[layout.VersionProperty], props["canmount"], props["mountpoint"] = strconv.Itoa(layoutVersion), "on", root
	maps.Copy(props, own)
	return props, nil
}
