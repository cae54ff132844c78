package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// anyOrder returns an action that reads options after the arguments too, which package
// cli does not.
func anyOrder(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		above := c.Lineage()[1]
		words := above.Args().Tail() // after the command's name
		sorted := optionsFirst(c.Command.Flags, words)
		if slices.Equal(words, sorted) {
			return action(c)
		}
		command := *c.Command
		command.Action = action
		again := cli.NewContext(c.App, nil, above)
		again.Command = &command
		return command.Run(again, append([]string{command.Name}, sorted...)...)
	}
}

// optionsFirst moves options, with their values, before the arguments. Words after "--"
// are arguments.
func optionsFirst(flags []cli.Flag, words []string) []string {
	var options, arguments []string
	for i := 0; i < len(words); i++ {
		word := words[i]
		switch {
		case word == "--":
			return append(append(append(options, word), arguments...), words[i+1:]...)
		case word == "-" || !strings.HasPrefix(word, "-"):
			arguments = append(arguments, word)
		case takesNext(flags, word) && i+1 < len(words):
			i++
			options = append(options, word, words[i])
		default:
			options = append(options, word)
		}
	}
	return append(options, arguments...)
}

// takesNext reports whether the value of an option is the next word.
func takesNext(flags []cli.Flag, word string) bool {
	name := strings.TrimLeft(word, "-")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			takes, ok := f.(cli.DocGenerationFlag)
			return ok && takes.TakesValue()
		}
	}
	return false
}
