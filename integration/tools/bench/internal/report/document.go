package report

import (
	_ "embed"
	"io"
	"strings"
	"text/template"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

//go:embed performance.md.tmpl
var documentText string

// PlotName is the file that the document expects its plot in, beside it.
const PlotName = "prepare.svg"

var document = template.Must(template.New("performance.md").Funcs(template.FuncMap{
	"title": operationTitle,
}).Parse(documentText))

// Document writes performance.md.
func Document(w io.Writer, s *result.Set) error {
	type section struct{ Title, Name, Samples, Table string }
	var sections []section
	for _, o := range operations {
		if text := timeTable(s, o.name); text != "" {
			sections = append(sections, section{o.title, o.name, samplesOf(s, o.name), text})
		}
	}
	var loads []section
	for _, o := range loaded {
		if text := loadTable(s, o.name); text != "" {
			loads = append(loads, section{Title: o.title, Name: o.name, Table: text})
		}
	}
	return document.Execute(w, map[string]any{
		"Facts": s, "Quick": s.Fact(PlanFact) == "quick", "Emulated": s.Fact("machine") == result.Emulated,
		"Goals": count(goalVerdicts(s)), "Earlier": count(verdicts(s)),
		"Waits": waitsTable(s), "WaitsSamples": samplesOf(s, TxgsPrefix+View),
		"Traces":  traceTable(s),
		"Imports": importTable(s), "ImportsSamples": samplesOf(s, Import),
		"LoadRatios": loadRatioTable(s),
		"Loads":      loads, "Writer": writers(s),
		"Ratios": ratioTable(s), "Sections": sections,
		"Layers": layerTable(s), "LayerMemory": layerMemory(s),
		"Scale": scaleTable(s),
		"Held":  heldTable(s), "HeldSamples": samplesOf(s, HeldPrefix+Container), "HeldImports": samplesOf(s, HeldPrefix+Import),
		"Cleaning": timeTable(s, Cleaning), "Starts": timeTable(s, Start), "Memory": memoryTable(s),
		"OverlayBtrfs": len(rowsOn(s, OverlayBtrfs)) > 0,
		"Plot":         PlotName,
	})
}

// writers returns how much the writers of the runs on a busy pool wrote, in words. Result.Merge
// gives the facts of later runs a prefix.
func writers(s *result.Set) string {
	var all []string
	for _, f := range s.Facts {
		if f.Key == WriterFact || strings.HasSuffix(f.Key, "-"+WriterFact) {
			all = append(all, f.Value)
		}
	}
	return strings.Join(all, ", ")
}

// A tally is a table of targets and how many of them are met.
type tally struct {
	Verdicts             []verdict
	Met, Judged, Missing int
}

func count(all []verdict) tally {
	t := tally{Verdicts: all}
	for _, v := range all {
		if v.Met == "" {
			t.Missing++
			continue
		}
		t.Judged++
		if v.Met == "yes" {
			t.Met++
		}
	}
	return t
}

// layerMemory is what the daemon had in memory at most while it made layers.
func layerMemory(s *result.Set) string {
	if peak, ok := layersPeak(s); ok {
		return mebibytes(peak)
	}
	return ""
}

// rowsOn are the cases of a contender.
func rowsOn(s *result.Set, name string) []result.Case {
	var found []result.Case
	for _, c := range s.Cases() {
		if c.On == name {
			found = append(found, c)
		}
	}
	return found
}
