<#
A controller of VMs under Hyper-V, for failback plans: kind = "commands". The job runs on Linux and
reaches the Hyper-V host by ssh; the VMs' disks are on a share that both see.

  [primary.controller]
  kind = "commands"
  program = ["ssh", "-oBatchMode=yes", "failback@hv1", "powershell", "-NoProfile", "-NonInteractive",
             "-File", "C:/diskdelta/controller.ps1"]
  time_limit = "30m"

C:\diskdelta\controller.json, next to this file:

  {
    "State": "C:\\diskdelta\\state",
    "Paths": { "/vm": "D:\\VM" },
    "Switches": { "lan": "External" },
    "VMs": { "db1": { "Name": "shop-db1", "MemoryMB": 8192, "Processors": 4, "Generation": 2,
                      "Import": "D:\\Export\\shop-db1\\Virtual Machines\\....vmcx" } }
  }

Paths: what a path of the plan begins with, and where that is on this host. Import is optional: with
it `create` imports that VM and keeps its id, without it a new VM is made. Both get the first
network's switch, and no disks before they are unfenced.

fence: the VM's disks are detached, and it is not started with the host; a VM that is
started all the same has no disk to change. unfence attaches them again where they were.

Not tried: none of this has run on a Hyper-V host; only its use by the contract was thought through.
Not covered: failover clusters (take the VM's role offline first), changes by RCT (each pass compares
the disks), pass-through disks, TPM keys of an imported VM.
#>
param([Parameter(Mandatory = $true, Position = 0)][string]$Verb)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

$config = Get-Content -Raw -Path (Join-Path $PSScriptRoot 'controller.json') | ConvertFrom-Json
$request = [Console]::In.ReadToEnd() | ConvertFrom-Json

function Field($object, [string]$name) {
    if ($null -ne $object -and $object.PSObject.Properties[$name]) { return $object.$name }
    return $null
}

$settings = Field $config.VMs $request.vm
if ($null -eq $settings) { throw "controller.json names no VM $($request.vm)" }
$name = $settings.Name
$state = Join-Path $config.State "$($request.job).$($request.vm)"
New-Item -ItemType Directory -Force -Path $state | Out-Null

# One command at a time; the lock ends with this process.
$lock = $null
for ($tries = 0; $null -eq $lock; $tries++) {
    try { $lock = [IO.File]::Open((Join-Path $state 'lock'), 'OpenOrCreate', 'ReadWrite', 'None') }
    catch [IO.IOException] { if ($tries -ge 60) { throw }; Start-Sleep -Seconds 1 }
}

# A command that comes late is refused; 0.0 only looks.
$token = $request.token
if ($token.epoch -ne 0 -or $token.sequence -ne 0) {
    $file = Join-Path $state 'token'
    if (Test-Path $file) {
        $newest = (Get-Content -Raw $file).Trim().Split('.') | ForEach-Object { [uint64]$_ }
        if ($token.epoch -lt $newest[0] -or
            ($token.epoch -eq $newest[0] -and $token.sequence -lt $newest[1])) {
            throw "too late: $($newest -join '.') was seen already"
        }
    }
    Set-Content -Path "$file.new" -Value "$($token.epoch).$($token.sequence)"
    Move-Item -Force -Path "$file.new" -Destination $file
}

# The path of the plan on this host, and back.
function To-Windows([string]$path) {
    foreach ($prefix in $config.Paths.PSObject.Properties) {
        if ($path.StartsWith($prefix.Name + '/')) {
            return $prefix.Value + $path.Substring($prefix.Name.Length).Replace('/', '\')
        }
    }
    throw "controller.json has no path for $path"
}
function To-Plan([string]$path) {
    foreach ($prefix in $config.Paths.PSObject.Properties) {
        if ($path.StartsWith($prefix.Value + '\', [StringComparison]::OrdinalIgnoreCase)) {
            return $prefix.Name + $path.Substring($prefix.Value.Length).Replace('\', '/')
        }
    }
    throw "controller.json has no path of the plan for $path"
}
# The name of a machine that is not there is no error; any other failure is.
function Find-VM { Get-VM | Where-Object { $_.Name -eq $name } }
function Is-Fenced { Test-Path (Join-Path $state 'fenced') }
function Switch-Of([string]$network) {
    $switch = Field $config.Switches $network
    if ($null -eq $switch) { throw "controller.json has no switch for the network $network" }
    if (-not (Get-VMSwitch | Where-Object { $_.Name -eq $switch })) { throw "there is no switch $switch" }
    return $switch
}
function Detach-Disks {
    Get-VMHardDiskDrive -VMName $name | Where-Object { $_.Path } | Remove-VMHardDiskDrive
}
function Attach-Disks {
    $there = @(Get-VMHardDiskDrive -VMName $name | ForEach-Object { $_.Path })
    foreach ($disk in $request.disks) {
        $path = To-Windows $disk[1]
        if ($there -notcontains $path) { Add-VMHardDiskDrive -VMName $name -Path $path }
    }
    $vm = Find-VM
    if ($vm.Generation -eq 2) {
        $first = To-Windows $request.disks[0][1]
        $boot = Get-VMHardDiskDrive -VMName $name | Where-Object { $_.Path -eq $first }
        Set-VMFirmware -VMName $name -FirstBootDevice $boot
    }
}
# The file that holds the disk's bytes at the checkpoint: the parent of what the VM writes now.
function Frozen-Path([string]$path) {
    $drive = Get-VMHardDiskDrive -VMName $name | ForEach-Object { Get-VHD -Path $_.Path } |
        Where-Object { $_.ParentPath -eq $path }
    if (-not $drive) { return $null }
    return $path
}
function Checkpoints { Get-VMSnapshot -VMName $name | Where-Object { $_.Name -eq 'diskdelta-pass' } }
function Remove-Checkpoint {
    Checkpoints | Remove-VMSnapshot
    # Merging goes on behind the command's back.
    while (Get-VMHardDiskDrive -VMName $name | Where-Object { $_.Path -like '*.avhdx' }) {
        Start-Sleep -Seconds 2
    }
}

$answer = $null
$vm = Find-VM
switch ($Verb) {
    'inspect' { foreach ($network in @($request.networks)) { Switch-Of $network | Out-Null } }
    'create' {
        if (-not $vm) {
            $switch = Switch-Of (@($request.networks)[0])
            $import = Field $settings 'Import'
            if ($import) {
                $made = Import-VM -Path $import
                Rename-VM -VM $made -NewName $name
                Detach-Disks
                Get-VMNetworkAdapter -VMName $name | Connect-VMNetworkAdapter -SwitchName $switch
            } else {
                New-VM -Name $name -Generation $settings.Generation -NoVHD -SwitchName $switch `
                    -MemoryStartupBytes ($settings.MemoryMB * 1MB) | Out-Null
                Set-VM -Name $name -ProcessorCount $settings.Processors
            }
            Set-VM -Name $name -AutomaticStartAction Nothing -CheckpointType ProductionOnly
        }
    }
    'fence' {
        New-Item -ItemType File -Force -Path (Join-Path $state 'fenced') | Out-Null
        if ($vm) {
            Set-VM -Name $name -AutomaticStartAction Nothing
            if ($vm.State -eq 'Off') { Detach-Disks }
        }
    }
    'unfence' {
        if ($vm -and $vm.State -eq 'Off') { Attach-Disks }
        Remove-Item -Force -ErrorAction Ignore -Path (Join-Path $state 'fenced')
    }
    'start' {
        if ($vm -and -not (Is-Fenced) -and $vm.State -ne 'Running') {
            Attach-Disks
            Start-VM -Name $name
        }
    }
    'shut-down' {
        # Shuts the guest down and waits; one that does not answer is left running.
        if ($vm -and $vm.State -ne 'Off') { Stop-VM -Name $name -Confirm:$false }
    }
    'arm-tracking' { }
    'snapshot' {
        Remove-Checkpoint
        Checkpoint-VM -Name $name -SnapshotName 'diskdelta-pass'
    }
    'release' { if ($vm) { Remove-Checkpoint } }
    'changes-since' {
        if (Field $request 'since') {
            $answer = @{ tracking_lost = $true }
        } else {
            $disks = @()
            foreach ($disk in $request.disks) {
                $path = To-Windows $disk[1]
                if ($request.from_snapshot) { $path = Frozen-Path $path }
                if (-not $path) { $answer = @{ snapshot_lost = $true } }
                else { $disks += @{ identity = $disk[0]; address = (To-Plan $path) } }
            }
            if ($null -eq $answer) { $answer = @{ disks = $disks } }
        }
    }
    'retire' {
        if ($vm) { Remove-VM -Name $name -Force }
        Remove-Item -Force -ErrorAction Ignore -Path (Join-Path $state 'fenced')
        if (Field $request 'discard_disks') {
            foreach ($disk in $request.disks) {
                Remove-Item -Force -ErrorAction Ignore -Path (To-Windows $disk[1])
            }
        }
    }
    default { throw "no verb $Verb" }
}
if ($null -eq $answer) {
    $vm = Find-VM
    $answer = @{
        exists  = [bool]$vm
        running = [bool]($vm -and $vm.State -ne 'Off')
        fenced  = Is-Fenced
    }
}
ConvertTo-Json -InputObject $answer -Depth 5 -Compress
$lock.Dispose()
