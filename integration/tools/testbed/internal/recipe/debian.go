package recipe

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
)

// debian is what the host's own apt knows of Debian.
type debian struct {
	// codename is that of the host's release, or empty on no Debian.
	codename string
	// archive and security are the sites in use, empty where there are none.
	archive, security string
}

// hostDebian asks apt. What it does not know is left empty: mmdebstrap then
// has a default of its own.
func hostDebian(ctx context.Context) debian {
	d := debian{codename: osRelease("VERSION_CODENAME")}
	if osRelease("ID") != "debian" {
		return debian{}
	}
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format",
		"$(CREATED_BY)|$(SITE)|$(RELEASE)|$(COMPONENT)").Output()
	if err != nil {
		return d
	}
	d.archive, d.security = sites(string(out), d.codename)
	return d
}

// sites finds the archive and its security updates among apt's sources. Only
// what another root can reach as well counts.
func sites(targets, codename string) (archive, security string) {
	for line := range strings.Lines(targets) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		if len(fields) != 4 || fields[0] != "Packages" || fields[3] != "main" || !strings.HasPrefix(fields[1], "http") {
			continue
		}
		switch {
		case archive == "" && fields[2] == codename:
			archive = fields[1]
		case security == "" && fields[2] == codename+"-security":
			security = fields[1]
		}
	}
	return archive, security
}

// sources returns lines of a sources.list for a release, or nothing where no
// site is known. The option goes in brackets.
func (d debian) sources(codename, components, option string) []string {
	if d.archive == "" {
		return nil
	}
	deb := "deb "
	if option != "" {
		deb += "[" + option + "] "
	}
	var lines []string
	for _, of := range []string{"", "-updates", "-backports"} {
		lines = append(lines, deb+d.archive+" "+codename+of+" "+components)
	}
	if d.security != "" {
		lines = append(lines, deb+d.security+" "+codename+"-security "+components)
	}
	return lines
}

// osRelease returns a value of /etc/os-release, or nothing.
func osRelease(name string) string {
	file, err := os.Open("/etc/os-release")
	if err != nil {
		return ""
	}
	defer file.Close() // only read
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if value, found := strings.CutPrefix(lines.Text(), name+"="); found {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}

// proxyEnvironment passes the proxy of apt's configuration, or the user's, on
// to the roots, where that configuration is not.
func proxyEnvironment(ctx context.Context) []string {
	var environment []string
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		if value := os.Getenv(name); value != "" {
			environment = append(environment, name+"="+value)
		}
	}
	out, err := exec.CommandContext(ctx, "apt-config", "shell", "PROXY", "Acquire::http::Proxy").Output()
	value, found := strings.CutPrefix(strings.TrimSpace(string(out)), "PROXY=")
	if value = strings.Trim(value, "'"); err == nil && found && value != "" && value != "DIRECT" {
		environment = append(environment, "http_proxy="+value)
	}
	return environment
}
