//go:build linux

package main

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
)

func TestTheFullRunHasEnoughPreparesForA99thPercentile(t *testing.T) {
	const preparesInACycle = 2
	assert.GreaterOrEqual(t, loads.rounds*loads.cycles*preparesInACycle, 100)
}

func TestEveryContenderOfAPlanCanBeMade(t *testing.T) {
	var made []string
	for _, m := range makers() {
		made = append(made, m.flag())
	}
	for _, p := range []plan{loads, quickLoads, counted, quickCounted, imported, quickImported, scale, quickScale, held, quickHeld} {
		assert.Subset(t, made, p.only)
	}
	assert.Contains(t, made, report.Before)
	assert.Subset(t, made, names)
}

func TestAContenderThatIsChosenExplicitlyIsNotPartOfEveryRun(t *testing.T) {
	for _, m := range makers() {
		chosen := slices.Contains([]string{report.ZFSMounts, report.Builtin, report.Before, report.EmptyProxy, report.LogOnly}, m.name)
		assert.Equal(t, chosen, m.chosen, m.name)
	}
}
