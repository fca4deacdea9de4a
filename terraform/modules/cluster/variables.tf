variable "name" {
  description = "Name of the cluster, and prefix of every other name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.name))
    error_message = "name must be 2 to 20 lower-case letters, digits and '-', a letter first: bucket and role names are made of it."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes version of control plane and nodes, 1.29 or newer."
  type        = string

  validation {
    condition     = can(regex("^1\\.(29|[3-9][0-9])$", var.kubernetes_version))
    error_message = "kubernetes_version must be 1.29 or newer, as 1.NN: older ones lack what the manifests use."
  }
}

variable "subnet_ids" {
  description = "Private subnets for the control plane's interfaces."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids must hold subnets of two zones at least: EKS refuses one."
  }
}

variable "public_access_cidrs" {
  description = "Who may reach the API server from outside the VPC; with none, its public endpoint is off."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.public_access_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "public_access_cidrs holds CIDR blocks of your offices or VPN, such as 198.51.100.0/24, and never the whole internet."
  }
}

variable "admin_role_arns" {
  description = "IAM roles that administer the cluster: of people, and of what deploys the k8s overlay."
  type        = list(string)

  validation {
    condition     = length(var.admin_role_arns) > 0 && alltrue([for arn in var.admin_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$", arn))])
    error_message = "admin_role_arns must name one IAM role at least (arn:aws:iam::<account>:role/<name>): without an administrator nobody can deploy."
  }
}

variable "log_retention_days" {
  description = "Days that control plane logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_retention_days)
    error_message = "log_retention_days must be one that CloudWatch knows: 30, 60, 90, 120, 150, 180, 365, 400, 545 or 731."
  }
}
