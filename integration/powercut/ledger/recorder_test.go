package ledger

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRecorderWritesWholeNotesOnly(t *testing.T) {
	var got strings.Builder
	r := NewRecorder(&got)
	for _, part := range []string{`{"note":"begins","text":"plan"}`, "\n{\"note\":\"asks\"}\n", `{"note":"an`} {
		_, err := r.Write([]byte(part))
		require.NoError(t, err)
	}
	require.Equal(t, "{\"note\":\"begins\",\"text\":\"plan\"}\n{\"note\":\"asks\"}\n", got.String())
	require.Equal(t, "plan", r.Plan)
	require.Equal(t, 1, r.Asked)
	_, err := r.Write([]byte("x\n"))
	require.Error(t, err)
}
