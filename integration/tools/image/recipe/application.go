//go:build linux

package recipe

import (
	"context"
	_ "embed"
)

//go:embed app/main.py
var program []byte

// Where the program and the texts it counts end up in the finished image.
const (
	applicationDir = "srv/app"
	// Words is the directory of texts, absolute as a container sees it.
	Words = "/srv/app/words"
)

const news = "1 first release\n"

// makeApplication adds the program and one of every thing that a layer has to
// carry faithfully.
func makeApplication(_ context.Context, _ *kitchen, tree string) error {
	const words = applicationDir + "/texts" // renamed by the layer above
	return apply(tree,
		directory(applicationDir, 0o755),
		file(applicationDir+"/main.py", program, 0o755),
		file(applicationDir+"/settings.ini", []byte("# read by main.py\nlimit = 20000\ndigits = 50\n"), 0o644),
		file(applicationDir+"/CHANGES", []byte(news), 0o644),

		directory(words, 0o755),
		file(words+"/plain.txt", []byte("every layer is a clone of the one below\n"), 0o644),
		file(words+"/a name with spaces.txt", []byte("spaces are no separators\n"), 0o644),
		file(words+"/Übergröße – 数据 🗂.txt", []byte("größer als ASCII\n"), 0o644),
		file(words+"/two\nlines.txt", []byte("a newline is a letter like any other\n"), 0o644),
		file(words+`/back\slash\040.txt`, []byte("no escape\n"), 0o644),
		file(words+"/-rf *", []byte("no option\n"), 0o644),
		file(words+"/empty.txt", nil, 0o644),

		directory(applicationDir+"/bin", 0o755),
		duplicate("usr/bin/id", applicationDir+"/bin/setuid", 0o4755),
		duplicate("usr/bin/true", applicationDir+"/bin/setgid", 0o2755),
		duplicate("usr/bin/true", applicationDir+"/bin/capable", 0o755),
		netRaw(applicationDir+"/bin/capable"),

		directory(applicationDir+"/owned", 0o2770),
		file(applicationDir+"/owned/by-someone", []byte("uid 1234, gid 5678\n"), 0o600),
		owner(applicationDir+"/owned", 1234, 5678),
		owner(applicationDir+"/owned/by-someone", 1234, 5678),
		directory(applicationDir+"/scratch", 0o1777),
		directory(applicationDir+"/nothing", 0o755),
		fifo(applicationDir+"/pipe", 0o600),

		symlink("main.py", applicationDir+"/relative"),
		symlink("/usr/bin/python3", applicationDir+"/absolute"),
		symlink("../../nowhere/at all", applicationDir+"/dangling"),
		symlink("scratch", applicationDir+"/to-directory"),

		// The last layer turns each of these into the next.
		directory(applicationDir+"/kinds", 0o755),
		file(applicationDir+"/kinds/file-to-directory", []byte("a file\n"), 0o644),
		directory(applicationDir+"/kinds/directory-to-file", 0o755),
		file(applicationDir+"/kinds/directory-to-file/inside", []byte("hidden by a file\n"), 0o644),
		directory(applicationDir+"/kinds/directory-to-symlink", 0o755),
		file(applicationDir+"/kinds/directory-to-symlink/inside", []byte("hidden by a link\n"), 0o644),
		symlink("../scratch", applicationDir+"/kinds/symlink-to-directory"),
		directory(applicationDir+"/kinds/made-anew", 0o700),
		file(applicationDir+"/kinds/made-anew/old", []byte("must not shine through\n"), 0o644),
		file(applicationDir+"/kinds/file", []byte("mode and owner change, content does not\n"), 0o644),

		directory(applicationDir+"/links", 0o755),
		file(applicationDir+"/links/one", []byte("a file with three names\n"), 0o644),
		link(applicationDir+"/links/one", applicationDir+"/links/two"),
		link(applicationDir+"/links/one", applicationDir+"/links/three"),
		file(applicationDir+"/links/alone", []byte("gets a second name above\n"), 0o644),
	)
}

// makeChanges does to the layers below everything a layer can: most of what it
// holds are deletions.
func makeChanges(_ context.Context, _ *kitchen, tree string) error {
	const kinds, links = applicationDir + "/kinds", applicationDir + "/links"
	return apply(tree,
		removeAll("usr/share/doc"),
		removeAll("usr/share/info"),
		removeMatching("var/lib/apt/lists/*Release"),

		rename(applicationDir+"/CHANGES", applicationDir+"/NEWS"),
		appendTo(applicationDir+"/NEWS", "2 renamed from CHANGES\n"),
		rename(applicationDir+"/texts", Words),

		removeAll(kinds+"/file-to-directory"),
		directory(kinds+"/file-to-directory", 0o755),
		file(kinds+"/file-to-directory/inside", []byte("a directory now\n"), 0o644),
		removeAll(kinds+"/directory-to-file"),
		file(kinds+"/directory-to-file", []byte("a file now\n"), 0o644),
		removeAll(kinds+"/directory-to-symlink"),
		symlink("../links", kinds+"/directory-to-symlink"),
		removeAll(kinds+"/symlink-to-directory"),
		directory(kinds+"/symlink-to-directory", 0o755),
		removeAll(kinds+"/made-anew"),
		directory(kinds+"/made-anew", 0o755),
		file(kinds+"/made-anew/new", []byte("alone in here\n"), 0o644),
		mode(kinds+"/file", 0o400),
		owner(kinds+"/file", 1234, 5678),

		// Links within this layer, to a layer below, and one name fewer.
		file(links+"/fresh", []byte("both names are of this layer\n"), 0o644),
		link(links+"/fresh", links+"/fresh too"),
		link(links+"/alone", links+"/no longer alone"),
		link("usr/bin/env", links+"/env"),
		removeAll(links+"/three"),
	)
}
