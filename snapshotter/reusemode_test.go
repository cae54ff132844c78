package snapshotter

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func reuseMode(mode ReuseMode) func(c *Config) { return func(c *Config) { c.ReuseLayers = mode } }

// The mode of reuse is that of the configuration for the namespace. A label can only request
// more work.
func TestReuseModeFollowsConfigAndLabel(t *testing.T) {
	t.Parallel()
	a := lowerChain
	in := map[string]ReuseMode{"skips": ReuseSkip, "fetches": ReuseFetch, "unpacks": ReuseOff, "plain": ReuseAuto}
	for _, c := range []struct {
		mode      ReuseMode
		in        map[string]ReuseMode
		namespace string
		label     string
		want      ReuseMode
	}{
		{ReuseAuto, nil, "default", "", ReuseFetch},
		{ReuseAuto, nil, "k8s.io", "", ReuseSkip},
		{"", nil, "moby", "", ReuseFetch},
		{"", nil, "k8s.io", "", ReuseSkip},
		{ReuseSkip, nil, "default", "", ReuseSkip},
		{ReuseFetch, nil, "k8s.io", "", ReuseFetch},
		{ReuseOff, nil, "k8s.io", "", ReuseOff},
		{ReuseOff, in, "skips", "", ReuseSkip},
		{ReuseOff, in, "fetches", "", ReuseFetch},
		{ReuseSkip, in, "unpacks", "", ReuseOff},
		{ReuseOff, in, "plain", "", ReuseFetch},
		{ReuseOff, in, "default", "", ReuseOff},
		{ReuseSkip, nil, "default", "fetch", ReuseFetch},
		{ReuseSkip, nil, "default", "off", ReuseOff},
		{ReuseFetch, nil, "default", "fetch", ReuseFetch},
		{ReuseFetch, nil, "default", "off", ReuseOff},
		{ReuseOff, nil, "default", "fetch", ReuseOff}, // a label cannot request less work
	} {
		s := newFixture(t, settings(func(config *Config) { config.ReuseLayers, config.ReuseLayersIn = c.mode, c.in }))
		s.unpack("first", "", a, lower, lowerBlob)
		opts := []snapshots.Opt{ref(a)}
		if c.label != "" {
			opts = append(opts, label(ReuseLabel, c.label))
		}
		key := s.backend(c.namespace, "extract-1-x "+a)
		_, err := s.sn.Prepare(s.ctx, key, "", opts...)
		got := ReuseSkip
		if !errdefs.IsAlreadyExists(err) {
			require.NoError(t, err)
			if got = ReuseOff; s.isRepresented(s.templateOf("first/2/" + a)) {
				got = ReuseFetch
			}
			s.commit(s.backend(c.namespace, a), key)
		}
		assert.Equal(t, c.want, got, "%+v", c)
		assert.Len(t, s.templates(), 2)
		s.requireInvariants()
	}
}

// An unknown mode in a label or in the configuration is rejected.
func TestUnknownReuseModeIsRejected(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	for _, value := range []string{"skip", "auto", "", "Fetch", "fetch ", strings.Repeat("x", 1000)} {
		key := s.backend("default", "extract-1-x "+lowerChain)
		_, err := s.sn.Prepare(s.ctx, key, "", ref(lowerChain), label(ReuseLabel, value))
		require.ErrorIs(t, err, errdefs.ErrInvalidArgument, "%q", value)
		assert.ErrorContains(t, err, ReuseLabel)
		assert.Less(t, len(err.Error()), 500)
	}
	// The label is checked on active snapshots only.
	s.view("look", a, label(ReuseLabel, "skip"))
	key := s.standIn("default", "", lowerChain, label(ReuseLabel, "fetch"))
	_, err := s.sn.Update(s.ctx, snapshots.Info{Name: key, Labels: map[string]string{ReuseLabel: "skip"}}, "labels."+ReuseLabel)
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	s.commit(s.backend("default", lowerChain), key, label(ReuseLabel, "fetch"))
	s.requireInvariants()

	for _, with := range []func(*Config){reuseMode("yes"), func(c *Config) { c.ReuseLayersIn = map[string]ReuseMode{"moby": "never"} }} {
		config := s.config()
		with(&config)
		_, err := New(s.ctx, s.pool, config)
		require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	}
}

// isRepresented reports whether a stand-in represents a template.
func (s *fixture) isRepresented(template string) bool {
	return slices.ContainsFunc(dump(s.sn), func(line string) bool {
		return strings.HasPrefix(line, "template "+template+" ") && !strings.Contains(line, " 0 stand-ins")
	})
}
