package snapshotter

import (
	"context"
	"maps"
	"slices"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// A decision is what zfstpl does about a property whose value a base would take over from
// the dataset above it.
type decision struct {
	property string
	// choices are the values that InitBase sets: the first that this release and this pool
	// know. Where there is none the property is left to the administrator.
	choices []choice
	// fine are other values that do no harm. A start reports every value that is neither
	// chosen nor fine, where harm says what it does.
	fine []string
	harm string
	// once says that the property can be given only when a file system is made.
	once bool
	// perFilesystem says that a new file system takes the value over, and that a later
	// change above it does not reach it.
	perFilesystem bool
	why           string // for docs/zfs.md
}

// A choice is a value and what it needs.
type choice struct {
	value   string
	since   zfs.Release // of the property or of the value
	feature string      // of the pool
}

var (
	release23 = zfs.Release{Major: 2, Minor: 3}
	release24 = zfs.Release{Major: 2, Minor: 4}
)

func always(value string) []choice { return []choice{{value: value}} }

// decisions has every property of zfsprops(7), as of 2.4, that a new file system takes
// over from the one above it. docs/zfs.md shows them; a test compares.
var decisions = []decision{
	// What an image or a container would notice.
	{property: "normalization", choices: always("none"), once: true, harm: "of two names that differ in normalization one replaces the other",
		why: "file names of an image stay as they are, byte by byte"},
	{property: "utf8only", choices: always("off"), once: true, harm: "a layer with a name that is not UTF-8 cannot be unpacked",
		why: "file names of an image need not be UTF-8; must be given with `normalization`, which implies it"},
	{property: "casesensitivity", choices: always("sensitive"), once: true, harm: "of two names that differ in case one replaces the other",
		why: "file names of an image may differ in case alone"},
	{property: "snapdir", choices: []choice{{value: "disabled", since: release23}, {value: "hidden"}}, harm: "containers reach snapshots of their root in /.zfs",
		why: "no `/.zfs` in a container; `hidden` only hides its name, and is all there is before 2.3"},
	{property: "acltype", choices: always("posix"), harm: "ACLs of an image are refused", why: "layers have POSIX ACLs"},
	{property: "xattr", choices: always("sa"), fine: []string{"on", "dir"}, harm: "file capabilities and labels of an image are refused",
		why: "layers have extended attributes; `sa` keeps them in the inode, not in a hidden directory"},
	{property: "exec", choices: always("on"), harm: "no program of an image can be executed", why: "containers execute programs"},
	{property: "setuid", choices: always("on"), harm: "setuid programs and file capabilities have no effect", why: "images have setuid programs"},
	{property: "devices", choices: always("on"), harm: "containers cannot use device files", why: "containers have device files"},
	{property: "readonly", choices: always("off"), harm: "nothing can be written", why: "containers write"},
	{property: "longname", choices: []choice{{value: "off", since: release23, feature: "longname"}}, harm: "containers can make names of more than 255 bytes, which no other file system takes",
		why: "a name of more than 255 bytes goes into a layer and into no other file system"},
	{property: "nbmand", choices: always("off"), harm: "file systems are mounted with mandatory locks", why: "Linux has no mandatory locks any more, and older kernels refuse the mount"},
	{property: "zoned", choices: always("off"), harm: "ZFS does not mount the base", why: "the host mounts the base and the containers' roots"},
	{property: "sharenfs", choices: always("off"), harm: "the base is exported by NFS", why: "the base is not for others"},
	{property: "sharesmb", choices: always("off"), harm: "the base is shared by SMB", why: "the base is not for others"},
	defaultQuota("defaultuserquota"), defaultQuota("defaultuserobjquota"),
	defaultQuota("defaultgroupquota"), defaultQuota("defaultgroupobjquota"),
	defaultQuota("defaultprojectquota"), defaultQuota("defaultprojectobjquota"),

	// What is set because it suits containers; another value does no harm.
	{property: "atime", choices: always("off"), why: "reading writes nothing"},
	{property: "compression", choices: []choice{{value: "lz4", feature: "lz4_compress"}, {value: "on"}}, why: "costs little; `-o compression=zstd` packs better; `on` where the pool lacks `lz4_compress`"},
	{property: "dnodesize", choices: []choice{{value: "auto", feature: "large_dnode"}}, why: "room for extended attributes in the inode; only where the pool has `large_dnode`"},
	{property: "com.sun:auto-snapshot", choices: always("false"), why: "zfs-auto-snapshot's own opt-out"},

	// What is the administrator's.
	{property: "checksum", why: "policy"},
	{property: "copies", why: "policy"},
	{property: "dedup", why: "policy"},
	{property: "encryption", why: "policy; `-o encryption=on` and its options give the base a key of its own"},
	{property: "redundant_metadata", why: "policy"},
	{property: "sync", why: "policy: a program that calls fsync gets what the pool promises"},
	{property: "direct", why: "performance"},
	{property: "logbias", why: "performance"},
	{property: "prefetch", why: "performance"},
	{property: "primarycache", why: "performance"},
	{property: "recordsize", why: "performance"},
	{property: "secondarycache", why: "performance"},
	{property: "special_small_blocks", why: "performance"},
	{property: "overlay", why: "`off` refuses to mount the base on a directory with files in it; containers' mounts do not look at it"},
	{property: "relatime", why: "without effect while `atime=off`"},
	{property: "aclinherit", why: "without effect: it is for NFSv4 ACLs"},
	{property: "aclmode", why: "without effect: it is for NFSv4 ACLs"},
	{property: "mlslabel", why: "without effect on Linux"},
	{property: "vscan", why: "without effect on Linux"},
	{property: "snapdev", why: "of volumes"},
	{property: "volmode", why: "of volumes"},
}

// defaultQuota is the decision about a quota of every user, group or project. zfsprops(7)
// does not call these inherited, and a new file system has them all the same.
func defaultQuota(property string) decision {
	return decision{property: property, choices: []choice{{value: "none", since: release24}}, fine: []string{"0"}, perFilesystem: true,
		harm: "a user of a container gets EDQUOT where no quota of zfstpl's is met",
		why:  "`quota` of zfstpl bounds a container, and nothing else"}
}

// choose returns the value that a release and a pool know, and whether there is one. nil
// are all features.
func (d decision) choose(release zfs.Release, features map[string]bool) (string, bool) {
	for _, c := range d.choices {
		if release.AtLeast(c.since) && (c.feature == "" || features == nil || features[c.feature]) {
			return c.value, true
		}
	}
	return "", false
}

// harms reports whether a value does harm where want is chosen.
func (d decision) harms(value, want string) bool {
	return d.harm != "" && value != want && value != "-" && !slices.Contains(d.fine, value)
}

// PropertyPool is what choosing properties needs of ZFS.
type PropertyPool interface {
	Release(ctx context.Context) (zfs.Release, error)
	Features(ctx context.Context, names ...string) (map[string]bool, error)
}

// chosen returns the properties that the pool's release and features allow to choose.
func chosen(ctx context.Context, pool PropertyPool) (map[string]string, error) {
	release, err := pool.Release(ctx)
	if err != nil {
		return nil, err
	}
	features, err := pool.Features(ctx, neededFeatures()...)
	if err != nil {
		return nil, err
	}
	props := make(map[string]string)
	for _, d := range decisions {
		if value, ok := d.choose(release, features); ok {
			props[d.property] = value
		}
	}
	return props, nil
}

func neededFeatures() []string {
	names := make(map[string]bool)
	for _, d := range decisions {
		for _, c := range d.choices {
			if c.feature != "" {
				names[c.feature] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// baseProperties returns what a new base mounted at root is made with. own are the
// administrator's, which win.
func baseProperties(ctx context.Context, pool PropertyPool, root string, own map[string]string) (map[string]string, error) {
	props, err := chosen(ctx, pool)
	if err != nil {
		return nil, err
	}
	if _, normalized := own["normalization"]; normalized {
		delete(props, "utf8only") // ZFS takes no other value than it implies
	}
	props[VersionProperty], props["canmount"], props["mountpoint"] = layoutVersion, "on", root
	maps.Copy(props, own)
	return props, nil
}
