//go:build linux

package recipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// host is what the machine at hand knows about Debian's archive. Every field
// may be empty: mmdebstrap then goes by its defaults.
type host struct {
	mirror, keyring, proxy string
}

func inspectHost(ctx context.Context) host {
	return host{mirror: hostMirror(ctx), keyring: hostKeyring(), proxy: hostProxy(ctx)}
}

// hostMirror is the mirror a Debian host itself installs from: the one its
// owner chose, and perhaps the only one it can reach.
func hostMirror(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(SITE)", "Origin: Debian", "Label: Debian").Output()
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first)
}

const keyrings = "/usr/share/keyrings"

func hostKeyring() string {
	for _, name := range []string{"debian-archive-keyring.pgp", "debian-archive-keyring.gpg"} {
		if path := filepath.Join(keyrings, name); exists(path) {
			return path
		}
	}
	return ""
}

// hostProxy is the proxy of apt's configuration, which neither mmdebstrap nor
// the apt inside the tree reads.
func hostProxy(ctx context.Context) string {
	const script = `eval "$(apt-config shell proxy Acquire::http::Proxy)"; printf %s "$proxy"`
	out, err := exec.CommandContext(ctx, "sh", "-ec", script).Output()
	if err != nil || string(out) == "DIRECT" {
		return ""
	}
	return string(out)
}

// equip installs mmdebstrap and the keys of the suite where they are missing,
// and says so. A Debian older than the suite has had its keys in an update of
// debian-archive-keyring, which a fresh installation lacks.
func (k *kitchen) equip(ctx context.Context) error {
	_, missing := exec.LookPath("mmdebstrap")
	keys, err := filepath.Glob(filepath.Join(keyrings, "debian-archive-"+suite+"-*"))
	if err != nil {
		return err
	}
	if missing == nil && len(keys) > 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		if missing == nil {
			return nil // the packaging of another vendor: its keys are where it wants them
		}
		return errors.New("mmdebstrap is missing and there is no apt-get to install it with")
	}
	k.say("tools", "installing mmdebstrap and debian-archive-keyring on this machine, once")
	const script = `
apt-get -o Acquire::Retries=3 update
exec apt-get -o Acquire::Retries=3 install --yes --no-install-recommends mmdebstrap debian-archive-keyring`
	if err := k.run(k.command(ctx, script)); err != nil {
		return fmt.Errorf("installing mmdebstrap: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
