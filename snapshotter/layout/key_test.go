package layout

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// containerd passes "<namespace>/<number>/<client's key>".
func TestContainerdsPrefixIsParsed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, namespace, client string }{
		{"default/3/sha256:ab", "default", "sha256:ab"},
		{"k8s.io/12/extract-1-x sha256:ab", "k8s.io", "extract-1-x sha256:ab"},
		{"default/3/a/b/4/c", "default", "a/b/4/c"},
		{"default/3/line\nline", "default", "line\nline"},
		{"moby/1/ ", "moby", " "},
		{"plain", "", "plain"},
		{"a/b", "", "a/b"},
		{"/3/x", "", "/3/x"},
		{"default//x", "", "default//x"},
		{"default/x/y", "", "default/x/y"},
		{"default/3/", "", "default/3/"},
		{"default/3", "", "default/3"},
		{"default/-3/x", "", "default/-3/x"},
		{"../3/x", "..", "x"},
		{"", "", ""},
	} {
		assert.Equal(t, c.namespace, Namespace(c.name), "namespace of %q", c.name)
		assert.Equal(t, c.client, ClientName(c.name), "client's part of %q", c.name)
	}
}

func TestExtractTargetIsExact(t *testing.T) {
	t.Parallel()
	id := chain("a")
	for _, c := range []struct {
		key, want string
	}{
		{"extract-884922259-kMJE " + id, id},
		{"extract-x " + id, id},
		{"extract- " + id, ""},
		{"extract-1 " + id + " ", ""},
		{"extract-1 " + id + "\n", ""},
		{"extract-1  " + id, ""},
		{"extract-1 2 " + id, ""},
		{" extract-1 " + id, ""},
		{"Extract-1 " + id, ""},
		{"extract-1\n" + id, ""},
		{"extract-1 " + id[:70], ""},
		{"extract-1 " + id + "a", ""},
		{"extract-1 " + chain("A"), ""},
		{"extract-1 " + chain("g"), ""},
		{"extract-1 sha512:" + id[7:], ""},
		{"default/3/extract-1 " + id, ""}, // ExtractTarget takes the client's part
		{id, ""},
		{"", ""},
	} {
		got, ok := ExtractTarget(c.key)
		assert.Equal(t, c.want, got, "target of %q", c.key)
		assert.Equal(t, c.want != "", ok, "target of %q", c.key)
	}
}
