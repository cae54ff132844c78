package plugin

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// docs/messages.md has a row for each message of the log from level info on, in order. The
// messages are constant strings, so that they can be searched for.
func TestEveryLogMessageIsDocumented(t *testing.T) {
	t.Parallel()
	warnings, info := logMessages(t, "../snapshotter", "../plugin", "../cmd")
	messages, err := os.ReadFile("../docs/messages.md")
	require.NoError(t, err)
	_, text, found := strings.Cut(string(messages), "\n## Warnings and errors\n")
	require.True(t, found)
	first, second, found := strings.Cut(text, "\n## Information\n")
	require.True(t, found)
	assert.Equal(t, warnings, documented(first), "warnings and errors")
	assert.Equal(t, info, documented(second), "information")
}

var messageRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// documented returns the messages in the first column of a table.
func documented(text string) (messages []string) {
	for _, row := range messageRow.FindAllStringSubmatch(text, -1) {
		messages = append(messages, row[1])
	}
	return messages
}

// logMessages returns the messages of the log calls in the product files of some
// directories, sorted and without duplicates. It reports calls whose message is not a
// constant string.
func logMessages(t *testing.T, dirs ...string) (warnings, info []string) {
	t.Helper()
	files := token.NewFileSet()
	for _, dir := range dirs {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && d.Name() == "zfsfake" {
				return fs.SkipDir // for tests: its Errorf is not a log
			}
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				level, ok := logLevel(call)
				if !ok {
					return true
				}
				message, ok := constantMessage(call)
				if !assert.True(t, ok, "%s: the message is not a constant string", files.Position(call.Pos())) {
					return true
				}
				if level == "Info" {
					info = append(info, message)
				} else {
					warnings = append(warnings, message)
				}
				return true
			})
			return nil
		}))
	}
	slices.Sort(warnings)
	slices.Sort(info)
	return slices.Compact(warnings), slices.Compact(info)
}

// logLevel returns the level of a log call, without a suffix such as in Warnf. It recognizes
// log calls by the name of the method and the number of arguments.
func logLevel(call *ast.CallExpr) (level string, ok bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	if name, ok := method.X.(*ast.Ident); ok && slices.Contains([]string{"errors", "fmt", "status"}, name.Name) {
		return "", false
	}
	switch name := method.Sel.Name; name {
	case "Info", "Warn", "Warning", "Error", "Fatal", "Panic":
		return name, len(call.Args) == 1
	case "Infof", "Infoln", "Warnf", "Warnln", "Warningf", "Warningln", "Errorf", "Errorln", "Fatalf", "Fatalln", "Panicf", "Panicln":
		return strings.TrimSuffix(strings.TrimSuffix(name, "f"), "ln"), true
	}
	return "", false
}

// constantMessage returns the message of a log call if its only argument is a string
// literal.
func constantMessage(call *ast.CallExpr) (string, bool) {
	if method := call.Fun.(*ast.SelectorExpr).Sel.Name; strings.HasSuffix(method, "f") || strings.HasSuffix(method, "ln") {
		return "", false
	}
	literal, ok := call.Args[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	message, err := strconv.Unquote(literal.Value)
	return message, err == nil
}
