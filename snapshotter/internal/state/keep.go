package state

import (
	"fmt"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// WhyKeep returns the reason why a listed dataset must not be destroyed, or "".
func WhyKeep(base layout.Base, found []zfs.Dataset) string {
	if len(found) != 1 {
		return "it has child datasets"
	}
	st := Classify(base, found[0])
	switch {
	case len(st.Records) > 0:
		return fmt.Sprintf("it has the record of %q", st.Records[0].Info.Name)
	case st.Problem != "":
		return st.Problem
	case st.State == Foreign, st.State == Used:
		return "it is " + string(st.State)
	}
	return ""
}
