package main

import (
	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
)

// Every setting of the configuration file is a flag too, and the flag wins.
func flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Value: plugin.DefaultConfigFile, Usage: "configuration `FILE`"},
		&cli.StringFlag{Name: "dataset", Usage: "base `DATASET`, made by 'zfstpl init'"},
		&cli.StringFlag{Name: "root", Usage: "`DIR` where the base is mounted (default: what its mountpoint says)"},
		&cli.StringFlag{Name: "address", Usage: "unix `SOCKET` to serve on (default: " + plugin.DefaultAddress + ")"},
		&cli.StringFlag{Name: "log-level", Usage: "`LEVEL`: trace, debug, info, warn or error (default: info)"},
		&cli.StringFlag{Name: "warm-keep", Usage: "how long a template stays that nothing names: a `DURATION`, 0s or forever (default: 168h)"},
	}
}

// configuration reads the file, which may be missing unless it was named, and
// lays the flags over it.
func configuration(c *cli.Context) (plugin.Config, error) {
	config, err := plugin.LoadConfig(c.String("config"), !c.IsSet("config"))
	if err != nil {
		return config, err
	}
	for name, setting := range map[string]*string{
		"dataset": &config.Dataset, "root": &config.Root, "address": &config.Address, "log-level": &config.LogLevel,
	} {
		if c.IsSet(name) {
			*setting = c.String(name)
		}
	}
	if c.IsSet("warm-keep") {
		err = config.Warm.Keep.UnmarshalText([]byte(c.String("warm-keep")))
	}
	return config, err
}
