//go:build linux

package main

import (
	"context"
	"os"

	"github.com/zfstpl/zfstpl/integration/tools/image/recipe"
)

// pause leaves everything running until Ctrl-C.
func (t *tour) pause(ctx context.Context) error {
	t.say("try, in another shell:")
	for _, dir := range []string{t.bin, t.containerdBin} {
		if dir != "" {
			t.line("    $ export PATH=%s:$PATH", shellQuote(dir))
		}
	}
	for _, name := range []string{"CONTAINERD_ADDRESS", "CONTAINERD_NAMESPACE", "CONTAINERD_SNAPSHOTTER"} {
		t.line("    $ export %s=%s", name, shellQuote(os.Getenv(name)))
	}
	t.command("ctr", "run", "--rm", "--tty", recipe.Reference, "mine", "sh")
	if !t.rehearse {
		t.command("zfstpl", "ls", "--dataset", t.dataset())
		t.command("zfs", "list", "-r", "-t", "all", t.name)
	}
	t.say("Ctrl-C takes it all down")
	return t.sigs.wait(ctx)
}
