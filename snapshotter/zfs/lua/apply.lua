-- Carries out a list of steps, five words each: verb, name, origin, property,
-- value. Each zfs.sync call checks before it does anything and answers an errno;
-- the first that is not 0 stops the program, and what was done before it is
-- taken back, last first, so that the caller sees all of the list or none of it.
args = ...
argv = args["argv"]

local undo = {}
-- File systems that this list makes: what is set on them goes with them, and
-- nothing has to be read before. To look at a file system is what costs.
local made = {}

local function take_back()
    for i = #undo, 1, -1 do
        undo[i]()
    end
end

-- Answers what puts a property back as it is, or an errno.
local function restore(name, prop)
    if not zfs.exists(name) then return nil, 2 end
    local before, source = zfs.get_prop(name, prop)
    if source ~= name then
        return function() zfs.sync.inherit(name, prop) end, 0, false
    end
    return function() zfs.sync.set_prop(name, prop, before) end, 0, true
end

-- last: nothing follows that could fail, so that it need not be put back.
local function change(verb, name, prop, value, last)
    local back, err, here
    if not made[name] and not (last and verb == "set") then
        back, err, here = restore(name, prop)
        if err ~= 0 then return err end
        if verb == "inherit" and not here then return 0 end
    end
    if verb == "set" then
        err = zfs.sync.set_prop(name, prop, value)
    else
        err = zfs.sync.inherit(name, prop)
    end
    if err == 0 then undo[#undo + 1] = back end
    return err
end

local function run(verb, name, origin, prop, value, last)
    if verb == "set" or verb == "inherit" then return change(verb, name, prop, value, last) end
    local err, back
    if verb == "snapshot" then
        err = zfs.sync.snapshot(name)
        back = function() zfs.sync.destroy(name) end
    elseif verb == "clone" then
        err = zfs.sync.clone(origin, name)
        back = function() zfs.sync.destroy(name) end
        if err == 0 then made[name] = true end
    elseif verb == "promote" then
        err = zfs.sync.promote(name)
        back = function() zfs.sync.promote(origin) end
    else
        err = 22
    end
    if err == 0 then undo[#undo + 1] = back end
    return err
end

for i = 1, #argv, 5 do
    local verb, name = argv[i], argv[i + 1]
    local err = run(verb, name, argv[i + 2], argv[i + 3], argv[i + 4], i + 5 > #argv)
    if err ~= 0 then
        take_back()
        return { errno = err, op = verb, name = name }
    end
end
return { errno = 0 }
