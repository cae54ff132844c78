package plugin

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The sample configuration has the default of each setting.
func TestSampleConfigurationHasTheDefaults(t *testing.T) {
	t.Parallel()
	sample, err := LoadConfig("../contrib/zfstpl.toml", false)
	require.NoError(t, err)
	_, err = sample.Check()
	require.NoError(t, err)
	want := DefaultConfig()
	want.Dataset, want.Root = "tank/zfstpl", DefaultRoot
	assert.Equal(t, want, sample)
}

// The unit starts the program that 'make install' installs, and makes the directory of
// its socket.
func TestUnitAndDefaultsAgree(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile("../contrib/systemd/zfstpl.service")
	require.NoError(t, err)
	assert.Contains(t, string(unit), "ExecStart=/usr/local/bin/containerd-zfstpl-grpc\n")
	assert.Contains(t, string(unit), "Type=notify\n")
	assert.Contains(t, string(unit), "RuntimeDirectoryMode=0700\n")
	assert.True(t, strings.HasPrefix(DefaultAddress, "/run/zfstpl/"), "RuntimeDirectory=zfstpl creates the socket's directory")
	assert.Contains(t, string(unit), "RuntimeDirectory=zfstpl\n")
}

// containerd binds the daemon's mounts: the daemon must be in containerd's mount
// namespace, and the mounts stay when the daemon stops.
func TestUnitHasNoMountNamespace(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile("../contrib/systemd/zfstpl.service")
	require.NoError(t, err)
	assert.Contains(t, string(unit), "\nRuntimeDirectoryPreserve=yes\n")
	for line := range strings.Lines(string(unit)) {
		setting, _, _ := strings.Cut(line, "=")
		for _, private := range []string{
			"BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "ExtensionDirectories", "ExtensionImages", "InaccessiblePaths", "MountAPIVFS",
			"MountFlags", "MountImages", "NoExecPaths", "PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateTmp", "PrivateUsers",
			"ProcSubset", "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables",
			"ProtectProc", "ProtectSystem", "ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem",
		} {
			assert.NotEqual(t, private, setting, "the setting gives the daemon a mount namespace")
		}
	}
}

// The units of the cleanup use options that the command has, need no daemon, and only
// the timer starts them.
func TestCleanupUnitsUseKnownOptions(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile("../contrib/systemd/zfstpl-cleanup.service")
	require.NoError(t, err)
	for _, line := range []string{
		"ExecCondition=/usr/local/bin/zfstpl cleanup --check\n", "ExecStart=/usr/local/bin/zfstpl cleanup --if-needed\n",
		"IOSchedulingClass=idle\n", "KillSignal=SIGINT\n",
	} {
		assert.Contains(t, string(unit), line)
	}
	for _, word := range []string{"[Install]", "CPUSchedulingPolicy=idle\n", "Requires=", "Conflicts=shutdown", "Before=shutdown"} {
		assert.NotContains(t, string(unit), word)
	}
	timer, err := os.ReadFile("../contrib/systemd/zfstpl-cleanup.timer")
	require.NoError(t, err)
	assert.Contains(t, string(timer), "WantedBy=timers.target\n")
}
